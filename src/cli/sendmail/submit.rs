//! Handing the message to the daemon: a small blocking SMTP client.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::input::Message;
use super::server::Server;
use super::{DATA_ERROR, IO_ERROR, NO_USER, NOT_ALLOWED, Refusal, TRY_AGAIN, UNAVAILABLE};
use crate::cli::beside::aside;
use crate::mail::{Body, ForwardPath, Notify, Ret, ReversePath};
use crate::smtp::command::{MailCommand, RecipientCommand};
use crate::smtp::extension::Extensions;
use crate::smtp::framing::DataEncoder;
use crate::smtp::reply::{Reply, ReplyParser};

/// The daemon is on this machine: it answers at once or not at all.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// RFC 5321 section 4.5.3.2.
const REPLY_PATIENCE: Duration = Duration::from_secs(5 * 60);
/// RFC 5321 section 4.5.3.2.6.
const FINAL_DOT_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Of a message with more recipients than one transaction takes, in memory.
const KEPT_MAXIMUM: u64 = 1 << 30;

/// A message's envelope, as the command line said it.
pub struct Submission {
    /// Who gets reports.
    pub reverse_path: ReversePath,
    /// To whom; never empty.
    pub recipients: Vec<ForwardPath>,
    /// Which reports are wanted.
    pub notify: Notify,
    /// How much of the message a report returns.
    pub ret: Option<Ret>,
    /// The transaction's name.
    pub envid: Option<String>,
    /// What kind of octets the message has, if it was said.
    pub body: Option<Body>,
    /// Show the dialogue.
    pub verbose: bool,
}

/// Submits a message: `beginning`, then what is still unread of `rest`.
///
/// One recipient that is refused refuses the message: the caller hears of one result,
/// and would send it again to all. More recipients than one transaction takes go in
/// several (RFC 5321 section 4.5.3.1.10).
pub fn submit<R: BufRead>(
    server: &Server,
    submission: &Submission,
    beginning: &[u8],
    rest: &mut Message<R>,
) -> Result<(), Refusal> {
    let mut dialogue = Dialogue::connect(&server.addresses, submission.verbose)?;
    let greeting = dialogue.reply()?;
    expect(&greeting, "connect", UNAVAILABLE)?;
    let hello = dialogue.say(&format!("EHLO {}", server.hostname))?;
    expect(&hello, "EHLO", UNAVAILABLE)?;
    let offered = Extensions::parse(&hello);

    let utf8 = submission.recipients.iter().any(|it| !it.is_ascii())
        || submission
            .reverse_path
            .mailbox()
            .is_some_and(|it| !it.is_ascii());
    let mail = MailCommand {
        body: submission.body.filter(|_| offered.eight_bit_mime),
        smtputf8: utf8 && offered.smtputf8,
        ret: submission.ret.filter(|_| offered.dsn),
        envid: submission.envid.clone().filter(|_| offered.dsn),
        ..MailCommand::new(submission.reverse_path.clone())
    };
    let notify = match offered.dsn {
        true => submission.notify,
        false => Notify::Unspecified,
    };
    let at_once = offered
        .limits
        .recipients
        .map_or(usize::MAX, |it| it.max(1) as usize);
    let all = submission.recipients.len();
    let mut left = submission.recipients.as_slice();
    let mut copy: Option<Vec<u8>> = None;
    while !left.is_empty() {
        let mut transaction = || {
            expect(&dialogue.say(&mail.to_string())?, "MAIL", UNAVAILABLE)?;
            let taken = dialogue.recipients(&left[..left.len().min(at_once)], notify)?;
            if taken < left.len() && copy.is_none() {
                copy = Some(whole(rest, offered.size.flatten())?);
            }
            let go_ahead = dialogue.say("DATA")?;
            if !go_ahead.is_intermediate() {
                return Err(refusal(&go_ahead, "DATA", UNAVAILABLE));
            }
            let ended = match &copy {
                None => dialogue.content(beginning, |piece| rest.read(piece))?,
                Some(copy) => {
                    let mut once = Some(copy);
                    dialogue.content(beginning, |piece| {
                        let copy = once.take();
                        piece.extend(copy.into_iter().flatten());
                        Ok(copy.is_some())
                    })?
                }
            };
            expect(&ended, "the message", UNAVAILABLE)?;
            Ok(taken)
        };
        let taken = transaction().map_err(|refusal| match all - left.len() {
            0 => refusal,
            queued => Refusal::new(
                refusal.code,
                format!(
                    "queued for the first {queued} of {all} recipients, not for the others: {}",
                    refusal.message
                ),
            ),
        })?;
        left = &left[taken..];
    }
    // It is queued: nothing that happens now changes that.
    dialogue.send(b"QUIT\r\n").ok();
    Ok(())
}

/// The rest of the message, kept to be sent more than once.
fn whole<R: BufRead>(rest: &mut Message<R>, limit: Option<u64>) -> Result<Vec<u8>, Refusal> {
    let limit = limit.map_or(KEPT_MAXIMUM, |it| it.min(KEPT_MAXIMUM));
    let mut text = Vec::new();
    while rest.read(&mut text).map_err(unreadable)? {
        if text.len() as u64 > limit {
            let words = format!("the message is larger than {limit} octets");
            return Err(Refusal::new(UNAVAILABLE, words));
        }
    }
    Ok(text)
}

fn unreadable(error: io::Error) -> Refusal {
    Refusal::new(IO_ERROR, format!("cannot read the message: {error}"))
}

fn expect(reply: &Reply, what: &str, code: u8) -> Result<(), Refusal> {
    match reply.is_positive() {
        true => Ok(()),
        false => Err(refusal(reply, what, code)),
    }
}

/// What a negative reply means to the caller: its words, and the exit code that fits.
fn refusal(reply: &Reply, what: &str, code: u8) -> Refusal {
    let message = format!("{what}: {} {}", reply.code, shown(reply));
    let status = reply.enhanced.map(|it| (it.subject, it.detail));
    let code = match status {
        _ if !reply.is_permanent() => TRY_AGAIN,
        // Policy: this sender may not, whatever the recipient is.
        Some((7, _)) => NOT_ALLOWED,
        Some((6, _)) => DATA_ERROR,
        _ => code,
    };
    Refusal::new(code, message)
}

fn shown(reply: &Reply) -> String {
    let enhanced = reply.enhanced.map(|it| format!("{it} "));
    format!(
        "{}{}",
        enhanced.unwrap_or_default(),
        reply.text().replace('\n', " ")
    )
}

/// Says a reply as it came, line by line.
fn aloud(reply: &Reply) {
    let enhanced = reply.enhanced.map(|it| format!("{it} "));
    let enhanced = enhanced.unwrap_or_default();
    let text = reply.text();
    let last = text.lines().count().max(1) - 1;
    for (place, line) in text.split('\n').enumerate() {
        let mark = if place < last { '-' } else { ' ' };
        aside(format!("{}{mark}{enhanced}{line}", reply.code));
    }
}

/// A connection to the daemon.
struct Dialogue {
    stream: TcpStream,
    parser: ReplyParser,
    /// Read and not yet looked at.
    unread: Vec<u8>,
    verbose: bool,
}

impl Dialogue {
    fn connect(addresses: &[SocketAddr], verbose: bool) -> Result<Self, Refusal> {
        let stream = connect(addresses)?;
        stream
            .set_read_timeout(Some(REPLY_PATIENCE))
            .map_err(broken)?;
        stream
            .set_write_timeout(Some(REPLY_PATIENCE))
            .map_err(broken)?;
        stream.set_nodelay(true).map_err(broken)?;
        Ok(Self {
            stream,
            parser: ReplyParser::new(),
            unread: Vec::new(),
            verbose,
        })
    }

    fn say(&mut self, command: &str) -> Result<Reply, Refusal> {
        if self.verbose {
            aside(format!(">>> {command}"));
        }
        self.send(format!("{command}\r\n").as_bytes())
            .map_err(broken)?;
        self.reply()
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    fn reply(&mut self) -> Result<Reply, Refusal> {
        let mut piece = [0; 4096];
        loop {
            let (consumed, reply) = self.parser.feed(&self.unread);
            self.unread.drain(..consumed);
            match reply {
                Some(Ok(reply)) => {
                    if self.verbose {
                        aloud(&reply);
                    }
                    return Ok(reply);
                }
                Some(Err(error)) => {
                    let words = format!("that is no penstockd: {error}");
                    return Err(Refusal::new(TRY_AGAIN, words));
                }
                None => {}
            }
            match self.stream.read(&mut piece).map_err(broken)? {
                0 => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
                length => self.unread.extend_from_slice(&piece[..length]),
            }
        }
    }

    /// Names recipients; how many of them this transaction takes, one at least.
    fn recipients(&mut self, all: &[ForwardPath], notify: Notify) -> Result<usize, Refusal> {
        for (taken, recipient) in all.iter().enumerate() {
            let command = RecipientCommand {
                notify,
                ..RecipientCommand::new(recipient.clone())
            };
            let reply = self.say(&command.to_string())?;
            let status = reply.enhanced.map(|it| (it.subject, it.detail));
            if reply.code == 452 && status == Some((5, 3)) && taken > 0 {
                return Ok(taken);
            }
            expect(&reply, &recipient.to_string(), NO_USER)?;
        }
        Ok(all.len())
    }

    /// Sends the message and reads what is said about it; `next` appends the next piece,
    /// and says whether there was one.
    fn content(
        &mut self,
        beginning: &[u8],
        mut next: impl FnMut(&mut Vec<u8>) -> io::Result<bool>,
    ) -> Result<Reply, Refusal> {
        let mut encoder = DataEncoder::new();
        let mut encoded = Vec::new();
        encoder.feed(beginning, &mut encoded);
        let mut piece = Vec::new();
        loop {
            // A daemon that refuses in the middle says why and closes: its words matter
            // more than that we could not write.
            if let Err(error) = self.send(&encoded) {
                return self.reply().map_err(|_| broken(error));
            }
            piece.clear();
            // A message of which a part is missing must not be sent: the connection ends
            // without the dot, and nothing was sent.
            if !next(&mut piece).map_err(unreadable)? {
                break;
            }
            encoded.clear();
            encoder.feed(&piece, &mut encoded);
        }
        self.stream
            .set_read_timeout(Some(FINAL_DOT_PATIENCE))
            .map_err(broken)?;
        if let Err(error) = self.send(encoder.finish()) {
            return self.reply().map_err(|_| broken(error));
        }
        let reply = self.reply()?;
        self.stream
            .set_read_timeout(Some(REPLY_PATIENCE))
            .map_err(broken)?;
        Ok(reply)
    }
}

/// The connection is of no use any more: the message was not taken, as far as we know.
fn broken(error: io::Error) -> Refusal {
    let words = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "penstockd does not answer".into(),
        io::ErrorKind::UnexpectedEof => "penstockd ended the connection".into(),
        _ => format!("the connection to penstockd broke: {error}"),
    };
    Refusal::new(TRY_AGAIN, words)
}

fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Refusal> {
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                last = Some(format!(
                    "cannot reach penstockd on {address}: {error}; is it running?"
                ))
            }
        }
    }
    Err(Refusal::new(
        TRY_AGAIN,
        last.unwrap_or_else(|| "there is no address to try".into()),
    ))
}

/// `-bs`: whoever is on standard input speaks SMTP with the daemon.
pub fn converse(server: &Server) -> Result<(), Refusal> {
    let stream = match connect(&server.addresses) {
        Ok(stream) => stream,
        Err(refusal) => {
            // A client of SMTP reads replies, not exit codes.
            writeln!(io::stdout().lock(), "421 4.3.2 {}\r", refusal.message).ok();
            return Err(refusal);
        }
    };
    let mut to_server = stream.try_clone().map_err(broken)?;
    std::thread::spawn(move || {
        io::copy(&mut io::stdin().lock(), &mut to_server).ok();
        to_server.shutdown(std::net::Shutdown::Write).ok();
    });
    // Unbuffered: every reply is waited for.
    let mut from_server = stream;
    let mut piece = [0; 4096];
    loop {
        match from_server.read(&mut piece).map_err(broken)? {
            0 => return Ok(()),
            length => {
                let mut out = io::stdout().lock();
                out.write_all(&piece[..length])
                    .and_then(|()| out.flush())
                    .map_err(broken)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;
    use crate::mail::{Domain, Mailbox};

    /// A server that answers each line with the next of `script` (inside DATA, the dot), and
    /// gives back all it heard.
    fn server(script: &'static [&'static str]) -> (Server, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            addresses: vec![listener.local_addr().unwrap()],
            hostname: Domain::parse("app01.example.nl").unwrap(),
        };
        let heard = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut heard = String::new();
            let mut in_data = false;
            for reply in script {
                stream.write_all(reply.as_bytes()).unwrap();
                in_data = reply.starts_with("354");
                loop {
                    let before = heard.len();
                    if reader.read_line(&mut heard).unwrap() == 0 {
                        return heard;
                    }
                    if !in_data || &heard[before..] == ".\r\n" {
                        break;
                    }
                }
            }
            assert!(!in_data);
            heard
        });
        (server, heard)
    }

    fn submission(recipients: &[&str]) -> Submission {
        Submission {
            reverse_path: ReversePath::Mailbox(Mailbox::parse("jan@x.nl").unwrap()),
            recipients: recipients
                .iter()
                .map(|it| ForwardPath::parse(it).unwrap())
                .collect(),
            notify: Notify::Never,
            ret: Some(Ret::Headers),
            envid: Some("a+b".into()),
            body: Some(Body::EightBitMime),
            verbose: false,
        }
    }

    fn sent(server: &Server, recipients: &[&str], text: &str) -> Result<(), Refusal> {
        let mut rest = Message::new(text.as_bytes(), true);
        submit(
            server,
            &submission(recipients),
            b"Subject: s\r\n\r\n",
            &mut rest,
        )
    }

    const HELLO: &str = "250-x\r\n250-DSN\r\n250 8BITMIME\r\n";

    #[test]
    fn a_message_is_submitted_with_what_the_server_offers() {
        let (server, heard) = server(&[
            "220 x\r\n",
            HELLO,
            "250 ok\r\n",
            "250 ok\r\n",
            "354 go\r\n",
            "250 queued\r\n",
        ]);
        assert_eq!(sent(&server, &["bob@y.nl"], ".dot\nend"), Ok(()));
        assert_eq!(
            heard.join().unwrap(),
            "EHLO app01.example.nl\r\nMAIL FROM:<jan@x.nl> BODY=8BITMIME RET=HDRS ENVID=a+2Bb\r\n\
             RCPT TO:<bob@y.nl> NOTIFY=NEVER\r\nDATA\r\nSubject: s\r\n\r\n..dot\r\nend\r\n.\r\nQUIT\r\n"
        );
    }

    #[test]
    fn what_is_not_offered_is_not_asked_for() {
        let (server, heard) = server(&[
            "220 x\r\n",
            "250 x\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "354 go\r\n",
            "250 queued\r\n",
        ]);
        assert_eq!(sent(&server, &["bob@y.nl"], ""), Ok(()));
        let heard = heard.join().unwrap();
        assert!(
            heard.contains("MAIL FROM:<jan@x.nl>\r\nRCPT TO:<bob@y.nl>\r\n"),
            "{heard}"
        );
    }

    #[test]
    fn one_refused_recipient_refuses_the_message() {
        let (server, heard) = server(&[
            "220 x\r\n",
            HELLO,
            "250 ok\r\n",
            "250 ok\r\n",
            "550 5.1.1 no such user\r\n",
        ]);
        let refusal = sent(&server, &["bob@y.nl", "ann@y.nl"], "").unwrap_err();
        assert_eq!(
            refusal,
            Refusal::new(NO_USER, "ann@y.nl: 550 5.1.1 no such user")
        );
        assert!(!heard.join().unwrap().contains("DATA"));
    }

    #[test]
    fn more_recipients_than_one_transaction_takes_go_in_several() {
        const ANNOUNCED: &str = "250-x\r\n250 LIMITS RCPTMAX=2\r\n";
        const OK: &str = "250 ok\r\n";
        const FULL: &str = "452 4.5.3 too many recipients\r\n";
        let people = ["a@y.nl", "b@y.nl", "c@y.nl"];
        let first = "MAIL FROM:<jan@x.nl>\r\nRCPT TO:<a@y.nl>\r\nRCPT TO:<b@y.nl>\r\n";
        let refused = "RCPT TO:<c@y.nl>\r\n";
        let text = "DATA\r\nSubject: s\r\n\r\n..dot\r\n.\r\n";
        let second = "MAIL FROM:<jan@x.nl>\r\nRCPT TO:<c@y.nl>\r\n";
        let go = "354 go\r\n";
        let announced = vec!["220 x\r\n", ANNOUNCED, OK, OK, OK, go, OK, OK, OK, go, OK];
        let met = vec![
            "220 x\r\n",
            "250 x\r\n",
            OK,
            OK,
            OK,
            FULL,
            go,
            OK,
            OK,
            OK,
            go,
            OK,
        ];
        for (script, said) in [(announced, ""), (met, refused)] {
            let (server, heard) = server(script.leak());
            assert_eq!(sent(&server, &people, ".dot"), Ok(()));
            assert_eq!(
                heard.join().unwrap(),
                format!("EHLO app01.example.nl\r\n{first}{said}{text}{second}{text}QUIT\r\n")
            );
        }
    }

    #[test]
    fn a_later_transaction_that_is_refused_tells_who_is_queued() {
        let (server, heard) = server(&[
            "220 x\r\n",
            "250-x\r\n250 LIMITS RCPTMAX=1\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "354 go\r\n",
            "250 queued\r\n",
            "452 4.3.1 disk full\r\n",
        ]);
        let refusal = sent(&server, &["a@y.nl", "b@y.nl"], "x").unwrap_err();
        assert_eq!(refusal.code, TRY_AGAIN);
        assert!(
            refusal
                .message
                .starts_with("queued for the first 1 of 2 recipients"),
            "{}",
            refusal.message
        );
        heard.join().unwrap();
    }

    #[test]
    fn the_exit_code_tells_why_it_was_refused() {
        for (reply, code) in [
            ("452 4.3.1 disk full\r\n", TRY_AGAIN),
            ("550 5.7.1 no relay for <jan@x.nl>\r\n", NOT_ALLOWED),
            ("550 5.6.0 two From fields\r\n", DATA_ERROR),
            ("554 no\r\n", UNAVAILABLE),
            ("what?\r\n", TRY_AGAIN),
        ] {
            let script: &'static [&'static str] = vec!["220 x\r\n", HELLO, reply].leak();
            let (server, heard) = server(script);
            assert_eq!(
                sent(&server, &["bob@y.nl"], "").unwrap_err().code,
                code,
                "{reply}"
            );
            heard.join().unwrap();
        }
    }

    #[test]
    fn with_nobody_there_the_caller_is_to_try_again() {
        // Bound, so that nobody else gets it; and nobody listens.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        let server = Server {
            addresses: vec![address],
            hostname: Domain::parse("app01.example.nl").unwrap(),
        };
        assert_eq!(
            sent(&server, &["bob@y.nl"], "").unwrap_err().code,
            TRY_AGAIN
        );
    }
}
