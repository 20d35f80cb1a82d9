//! `explain`: what a refusal means, in any words and from anywhere.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::beside::aside;
use super::context::Context;
use super::exit::{Outcome, Trouble};
use super::screen::{Look, Tone};
use crate::mail::Stage;
use crate::outcome::bounce::{self, Said};
use crate::outcome::rules::{Rules, RulesError};
use crate::outcome::{Finding, classify};

/// What a server said stands near the top of a bounce.
const READ_MAXIMUM: u64 = 1 << 20;

/// Options of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// What the server said: "553 sorry, that domain isn't in my list of allowed rcpthosts";
    /// or a file with a bounce message, or - for standard input
    #[arg(value_name = "TEXT|FILE|-", required = true)]
    words: Vec<String>,
    /// When it was said, where that is known: in reply to AUTH, MAIL FROM, ...
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    stage: Option<Stage>,
}

fn stage(text: &str) -> Result<Stage, String> {
    Stage::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = Stage::ALL.iter().map(|it| it.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

/// One refusal, explained.
#[derive(Debug, Serialize)]
struct Explanation {
    recipient: Option<String>,
    server: Option<String>,
    stage: Option<&'static str>,
    code: Option<u16>,
    enhanced: Option<String>,
    text: String,
    class: &'static str,
    meaning: &'static str,
    action: &'static str,
    action_text: &'static str,
    remedy: String,
    rule: String,
    fallback: bool,
    #[serde(skip)]
    known: bool,
}

/// Explains a text, or every refusal in a bounce message.
pub fn explain(context: &mut Context, args: ExplainArgs) -> Outcome {
    let text = text(&args.words)?;
    if text.trim().is_empty() {
        return Err(Trouble::usage("nothing to explain"));
    }
    let (rules, note) = rules(Rules::beside(context.config_path()))?;
    if let Some(note) = note {
        aside(format!("penstock: {note}"));
    }
    let screen = &mut context.screen;
    for (place, mut said) in bounce::read(text.as_bytes()).into_iter().enumerate() {
        said.stage = args.stage.or(said.stage);
        let finding = classify(&rules, &said.refusal());
        let explanation = explanation(said, finding);
        if screen.look.json {
            screen.json(&explanation)?;
            continue;
        }
        if place > 0 {
            screen.line("")?;
        }
        for line in lines(&screen.look, &explanation) {
            screen.line(line)?;
        }
    }
    Ok(())
}

/// The rules in use, and a word to whoever may not look at the administrator's own: most
/// people may not enter the directory of the configuration, and what nearly every refusal
/// means is known without it.
fn rules(found: Result<Rules, RulesError>) -> Result<(Rules, Option<String>), Trouble> {
    match found {
        Ok(rules) => Ok((rules, None)),
        Err(
            error @ RulesError::Unread {
                kind: io::ErrorKind::PermissionDenied,
                ..
            },
        ) => {
            let note = format!("{error}: explained by the rules that come with Penstock alone");
            Ok((Rules::compiled_in().clone(), Some(note)))
        }
        Err(error) => Err(Trouble::configuration(error.to_string())),
    }
}

/// The words themselves, or what stands in the file or on standard input that they name.
fn text(words: &[String]) -> Result<String, Trouble> {
    let mut octets = Vec::new();
    match words {
        [only] if only == "-" => {
            if io::stdin().is_terminal() {
                aside(
                    "penstock: paste what the server said, or the whole bounce, then press Ctrl-D",
                );
            }
            io::stdin()
                .lock()
                .take(READ_MAXIMUM)
                .read_to_end(&mut octets)
        }
        [only] => match File::open(only) {
            Ok(file) => file.take(READ_MAXIMUM).read_to_end(&mut octets),
            Err(error) if looks_like_a_file(only) => {
                return Err(Trouble::failed(format!(
                    "cannot read {only}: {error}; if these are the words themselves, give them \
                     on standard input: penstock explain -"
                )));
            }
            Err(_) => return Ok(only.clone()),
        },
        // Not quoted on the command line: it is meant as one text all the same.
        many => return Ok(many.join(" ")),
    }
    .map_err(|error| Trouble::failed(format!("cannot read {}: {error}", words.join(" "))))?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// Whether one word is meant as a file, though there is none: what a server says has spaces.
fn looks_like_a_file(word: &str) -> bool {
    let ending = Path::new(word).extension().and_then(|it| it.to_str());
    let known =
        ending.is_some_and(|it| ["eml", "txt", "msg"].contains(&it.to_lowercase().as_str()));
    !word.contains(char::is_whitespace) && !word.contains("://") && (word.contains('/') || known)
}

fn explanation(said: Said, finding: Finding) -> Explanation {
    let some = |text: String| Some(text).filter(|it| !it.is_empty());
    let known = finding.is_known();
    Explanation {
        recipient: some(said.recipient),
        server: some(said.server),
        stage: said.stage.map(Stage::name),
        code: said.code,
        enhanced: said.enhanced.map(|it| it.to_string()),
        text: said.text,
        class: finding.class.name(),
        meaning: match known {
            true => finding.class.phrase(),
            false => "these words are not known here",
        },
        action: finding.action.name(),
        action_text: finding.action.phrase(),
        remedy: finding.remedy,
        rule: finding.rule,
        fallback: finding.fallback,
        known,
    }
}

fn lines(look: &Look, it: &Explanation) -> Vec<String> {
    let mut lines = Vec::new();
    let about = match (&it.recipient, &it.server) {
        (Some(recipient), Some(server)) => format!("{server} about {recipient}:"),
        (Some(recipient), None) => format!("about {recipient}:"),
        (None, Some(server)) => format!("{server}:"),
        (None, None) => String::new(),
    };
    if !about.is_empty() {
        lines.push(look.fit(&about, look.width));
    }
    lines.extend(look.wrap(&it.text, 2));
    let verdict = match it.known {
        true => format!("{} ({})", it.meaning, it.class),
        false => it.meaning.to_owned(),
    };
    lines.extend(
        look.wrap(&verdict, 0)
            .iter()
            .map(|line| look.tone(Tone::Strong, line)),
    );
    lines.extend(look.wrap(&it.remedy, 0));
    if !it.known {
        return lines;
    }
    let mut done = format!("what penstock does: {}", it.action_text);
    if it.fallback {
        let basis = format!("; no rule knows these words: judged by {}", it.rule);
        done.push_str(&basis);
    }
    lines.extend(
        look.wrap(&done, 0)
            .iter()
            .map(|line| look.tone(Tone::Faint, line)),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_not_taken_for_words() {
        let given = |word: &str| text(&[word.to_owned()]);
        for missing in [
            "nofile.eml",
            "Bounce.TXT",
            "/tmp/no/such",
            "./bounce",
            "a.msg",
        ] {
            let trouble = format!("{:?}", given(missing).unwrap_err());
            assert!(
                trouble.contains(missing) && trouble.contains("standard input"),
                "{trouble}"
            );
        }
        for words in [
            "550 5.7.1 see https://x.example/y.txt",
            "greylisted",
            "5.7.1",
            "https://aka.ms/smtp_auth_disabled",
        ] {
            assert_eq!(given(words).unwrap(), words);
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bounce.eml");
        std::fs::write(&file, "550 no").unwrap();
        assert_eq!(given(file.to_str().unwrap()).unwrap(), "550 no");
    }

    #[test]
    fn whoever_may_not_read_the_administrators_rules_is_answered_by_ours() {
        let unread = |kind: io::ErrorKind| {
            Err(RulesError::Unread {
                file: "/etc/penstock/rules.toml".into(),
                kind,
                detail: "no".into(),
            })
        };
        let (found, note) = rules(unread(io::ErrorKind::PermissionDenied)).unwrap();
        assert_eq!(&found, Rules::compiled_in());
        let note = note.unwrap();
        assert!(note.contains("/etc/penstock/rules.toml: no: "), "{note}");
        // Anything else is a mistake that would change the answer.
        assert!(rules(unread(io::ErrorKind::IsADirectory)).is_err());
        assert!(rules(Rules::in_use(Some("[[rule]]"), "mine")).is_err());
    }
}
