//! The classic command's options, as Sendmail, Postfix and Exim document them.
//!
//! What a mail system of another kind would need (queue files, macros, a daemon) is
//! accepted and ignored: programs pass such options without thinking about them.

use std::ffi::OsString;

use super::{Refusal, USAGE};
use crate::mail::{Body, Notify, Ret};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Send the message on standard input.
    Deliver,
    /// Speak SMTP on standard input and output.
    Smtp,
    /// `newaliases`.
    Aliases,
    /// Say how it is used.
    Help,
    /// Say the version.
    Version,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// What to do.
    pub mode: Mode,
    /// `-t`: the recipients stand in the message.
    pub from_header: bool,
    /// `-f`: who gets reports.
    pub sender: Option<String>,
    /// `-F`: the name for a From field that has to be made.
    pub full_name: Option<String>,
    /// `-i`: a line with a dot does not end the message.
    pub ignore_dots: bool,
    /// `-N`: which reports are wanted.
    pub notify: Notify,
    /// `-R`: how much of the message a report returns.
    pub ret: Option<Ret>,
    /// `-V`: the transaction's name.
    pub envid: Option<String>,
    /// `-B`: what kind of octets the message has.
    pub body: Option<Body>,
    /// `-v`: show the dialogue.
    pub verbose: bool,
    /// `--server`: where the daemon listens.
    pub server: Option<String>,
    /// `--config`: the configuration to look that up in.
    pub config: Option<String>,
    /// To whom.
    pub recipients: Vec<String>,
}

/// What `--help` says.
pub const HELP: &str = "\
Usage: sendmail [-t] [-i] [-f SENDER] [-F NAME] [OPTION...] [RECIPIENT...]

Reads a message on standard input and gives it to penstockd on this machine.

  -t           take the recipients from To, Cc and Bcc; Bcc is removed
  -i, -oi      a line with only a dot does not end the message
  -f SENDER    who gets reports; <> for nobody [default: the calling user]
  -F NAME      the name for a missing From field
  -N WHEN      which reports are wanted: never, or success, failure, delay
  -R HOW       full or hdrs: how much of the message a report returns
  -V ENVID     a name for this message in reports
  -B TYPE      7BIT or 8BITMIME
  -bs          speak SMTP on standard input and output
  -v           show what is said to the daemon
  --server HOST:PORT  where it listens [default: as configured; 127.0.0.1:2525]
  --config FILE       its configuration [default: /etc/penstock/penstock.toml]

Other options of the classic command are accepted and ignored.
Exit codes: 0 queued, 64 usage, 65 bad message, 67 recipient refused,
69 refused, 74 cannot read, 75 try again (no daemon), 77 not allowed.";

/// Options that always have a value, in the same word or the next.
const VALUED: &str = "ABbCDeFfhLMNOopQRrVX";
/// Options whose value, if any, stands in the same word.
const SOMETIMES_VALUED: &str = "dq";

/// Reads the arguments, the program's name left out.
pub fn read(arguments: Vec<OsString>) -> Result<Options, Refusal> {
    let mut options = Options {
        mode: Mode::Deliver,
        from_header: false,
        sender: None,
        full_name: None,
        ignore_dots: false,
        notify: Notify::Unspecified,
        ret: None,
        envid: None,
        body: None,
        verbose: false,
        server: None,
        config: None,
        recipients: Vec::new(),
    };
    let mut words = arguments
        .into_iter()
        .map(|it| it.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        let mut next = || {
            words
                .next()
                .ok_or_else(|| Refusal::new(USAGE, format!("{word} needs a value; see --help")))
        };
        match word.as_str() {
            "--" => {
                options.recipients.extend(words);
                break;
            }
            "--help" => options.mode = Mode::Help,
            "--version" => options.mode = Mode::Version,
            "--server" => options.server = Some(next()?),
            "--config" => options.config = Some(next()?),
            long if long.starts_with("--") => match long.split_once('=') {
                Some(("--server", value)) => options.server = Some(value.into()),
                Some(("--config", value)) => options.config = Some(value.into()),
                _ => {
                    return Err(Refusal::new(
                        USAGE,
                        format!("{long} is unknown; see --help"),
                    ));
                }
            },
            cluster if cluster.len() > 1 && cluster.starts_with('-') => {
                options.cluster(&cluster[1..], next)?;
            }
            _ => options.recipients.push(word),
        }
    }
    Ok(options)
}

impl Options {
    /// `-ti`, `-fjan@uwdomein.nl`: letters up to one that takes the rest as its value.
    fn cluster(
        &mut self,
        mut letters: &str,
        mut next: impl FnMut() -> Result<String, Refusal>,
    ) -> Result<(), Refusal> {
        while let Some(letter) = letters.chars().next() {
            letters = &letters[letter.len_utf8()..];
            if VALUED.contains(letter) {
                let value = match letters {
                    "" => next()?,
                    attached => attached.to_owned(),
                };
                return self.valued(letter, value);
            }
            if SOMETIMES_VALUED.contains(letter) {
                return self.valued(letter, letters.to_owned());
            }
            match letter {
                't' => self.from_header = true,
                'i' => self.ignore_dots = true,
                'v' => self.verbose = true,
                // Group submission, "me too", no aliasing, UUCP, ...: of other systems.
                'G' | 'I' | 'c' | 'E' | 'm' | 'n' | 's' | 'T' | 'U' | 'x' => {}
                unknown => {
                    let words = format!("-{unknown} is unknown; see --help");
                    return Err(Refusal::new(USAGE, words));
                }
            }
        }
        Ok(())
    }

    fn valued(&mut self, letter: char, value: String) -> Result<(), Refusal> {
        match letter {
            'f' | 'r' => self.sender = Some(value),
            'F' => self.full_name = Some(value),
            'N' => self.notify = notify(&value)?,
            'R' => self.ret = Some(ret(&value)?),
            'V' => self.envid = Some(value),
            'B' => self.body = Some(body(&value)?),
            'b' => self.mode = mode(&value)?,
            // `-o` sets an option of the mail system; of those only this one is ours.
            'o' if value == "i" => self.ignore_dots = true,
            'O' if value.eq_ignore_ascii_case("IgnoreDots=true") => self.ignore_dots = true,
            // `-q`: run the queue. It is run all the time, and nothing is to be sent now.
            'q' => self.mode = Mode::Aliases,
            _ => {}
        }
        Ok(())
    }
}

fn mode(value: &str) -> Result<Mode, Refusal> {
    match value {
        "m" => Ok(Mode::Deliver),
        "s" => Ok(Mode::Smtp),
        "i" => Ok(Mode::Aliases),
        "p" => Err(Refusal::new(USAGE, "the queue is shown by: penstock queue")),
        "d" | "D" => Err(Refusal::new(
            USAGE,
            "the daemon is penstockd: systemctl start penstock",
        )),
        "v" => Err(Refusal::new(
            USAGE,
            "where an address goes is shown by: penstock route ADDRESS",
        )),
        other => Err(Refusal::new(
            USAGE,
            format!("-b{other} is unknown; see --help"),
        )),
    }
}

fn notify(value: &str) -> Result<Notify, Refusal> {
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',').map(|it| it.trim().to_lowercase()) {
        match word.as_str() {
            "never" if value.trim().eq_ignore_ascii_case("never") => return Ok(Notify::Never),
            "success" => success = true,
            "failure" => failure = true,
            "delay" => delay = true,
            _ => {
                let words = format!("-N {value}: say never, or some of success,failure,delay");
                return Err(Refusal::new(USAGE, words));
            }
        }
    }
    Ok(Notify::On {
        success,
        failure,
        delay,
    })
}

fn ret(value: &str) -> Result<Ret, Refusal> {
    match value.to_lowercase().as_str() {
        "full" => Ok(Ret::Full),
        "hdrs" => Ok(Ret::Headers),
        _ => Err(Refusal::new(USAGE, format!("-R {value}: say full or hdrs"))),
    }
}

fn body(value: &str) -> Result<Body, Refusal> {
    match value.to_lowercase().as_str() {
        "7bit" => Ok(Body::SevenBit),
        "8bitmime" => Ok(Body::EightBitMime),
        _ => Err(Refusal::new(
            USAGE,
            format!("-B {value}: say 7BIT or 8BITMIME"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Options, Refusal> {
        read(
            text.split(' ')
                .filter(|it| !it.is_empty())
                .map(Into::into)
                .collect(),
        )
    }

    #[test]
    fn programs_call_it_like_this() {
        // PHP mail()
        let php = said("-t -i").unwrap();
        assert!(php.from_header && php.ignore_dots);
        // PHP mail() with additional parameters
        let php = said("-t -i -fbounce@uwdomein.nl").unwrap();
        assert_eq!(php.sender.as_deref(), Some("bounce@uwdomein.nl"));
        // bsd-mailx
        assert_eq!(
            said("-i jan@uwdomein.nl").unwrap().recipients,
            ["jan@uwdomein.nl"]
        );
        // git send-email
        let git = said("-f jan@uwdomein.nl -i bob@example.net ann@example.org").unwrap();
        assert_eq!(git.sender.as_deref(), Some("jan@uwdomein.nl"));
        assert_eq!(git.recipients.len(), 2);
        // cron
        let cron = said("-i -FCronDaemon -B8BITMIME -oem root").unwrap();
        assert_eq!(cron.full_name.as_deref(), Some("CronDaemon"));
        assert_eq!(cron.body, Some(Body::EightBitMime));
        assert_eq!(cron.recipients, ["root"]);
        // mutt
        let mutt =
            said("-oem -oi -f jan@uwdomein.nl -N success,failure -R hdrs -- -odd@example.net")
                .unwrap();
        assert!(mutt.ignore_dots);
        assert_eq!(
            mutt.notify,
            Notify::On {
                success: true,
                failure: true,
                delay: false
            }
        );
        assert_eq!(mutt.ret, Some(Ret::Headers));
        assert_eq!(mutt.recipients, ["-odd@example.net"]);
        // Others
        assert!(said("-ti").unwrap().from_header && said("-ti").unwrap().ignore_dots);
        assert_eq!(said("-bs").unwrap().mode, Mode::Smtp);
        assert_eq!(said("-bm a@b.nl").unwrap().mode, Mode::Deliver);
        assert_eq!(said("-bi").unwrap().mode, Mode::Aliases);
        assert_eq!(said("-q30m").unwrap().mode, Mode::Aliases);
        assert_eq!(said("-N never x@y.nl").unwrap().notify, Notify::Never);
        assert_eq!(
            said("-O DeliveryMode=b -C /etc/x.cf -d0.1 -X log -p ESMTP a@b.nl")
                .unwrap()
                .recipients,
            ["a@b.nl"]
        );
        assert_eq!(
            said("--server=127.0.0.1:25 -t").unwrap().server.as_deref(),
            Some("127.0.0.1:25")
        );
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for wrong in [
            "-f",
            "-N often",
            "-N never,delay",
            "-R some",
            "-B 9BIT",
            "-bz",
            "-Z",
            "--unknown",
            "--server",
            "-bp",
        ] {
            assert_eq!(said(wrong).unwrap_err().code, USAGE, "{wrong}");
        }
    }
}
