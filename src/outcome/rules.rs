//! The rules by which words of a refusal are judged: one data file, compiled in, and
//! what an administrator adds.
//!
//! Matching is by plain words, not by regular expressions: its cost is the length of
//! the text times the number of words, and a line of the file says what it matches.

use std::path::Path;
use std::sync::LazyLock;
use std::{fs, io};

use serde::Deserialize;

use crate::mail::{EnhancedStatus, Stage};

use super::finding::{Action, Class, Finding, Refusal};

/// The administrator's own rules, in a file of this name beside the configuration file.
pub const RULES_FILE: &str = "rules.toml";

/// More of a text than this is never looked at.
const TEXT_MAXIMUM_BYTES: usize = 4096;

/// The rules in the order in which they are tried: the first that matches decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    rules: Vec<Rule>,
}

/// Why rules cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Not TOML, or a key that is unknown or missing.
    #[error("{file}: {detail}")]
    Written {
        /// The file.
        file: String,
        /// What the reader said, with the line.
        detail: String,
    },
    /// It is there and cannot be read.
    #[error("cannot read {file}: {detail}")]
    Unread {
        /// The file.
        file: String,
        /// Why not.
        kind: io::ErrorKind,
        /// What the system said.
        detail: String,
    },
    /// A value that means nothing.
    #[error("{file}: rule {rule:?}: {what}")]
    Value {
        /// The file.
        file: String,
        /// The rule.
        rule: String,
        /// What is wrong.
        what: String,
    },
    /// A sample that the rule it stands in does not match.
    #[error("{file}: rule {rule:?} does not judge its own sample {sample:?}: {judged} does")]
    Sample {
        /// The file.
        file: String,
        /// The rule.
        rule: String,
        /// The sample.
        sample: String,
        /// The rule that does.
        judged: String,
    },
}

static COMPILED_IN: LazyLock<Rules> = LazyLock::new(|| {
    Rules::parse(include_str!("rules.toml"), "rules.toml")
        .expect("a test reads the same text and fails first")
});

impl Rules {
    /// The rules that come with Penstock.
    pub fn compiled_in() -> &'static Self {
        &COMPILED_IN
    }

    /// Reads rules from a text in the form of `rules.toml`.
    ///
    /// `file` is for the errors. A sample must be judged by the rule that it stands in.
    pub fn read(text: &str, file: &str) -> Result<Self, RulesError> {
        let rules = Self::parse(text, file)?;
        let misjudged = rules.misjudged(file).next();
        misjudged.map_or(Ok(rules), Err)
    }

    fn parse(text: &str, file: &str) -> Result<Self, RulesError> {
        let written: FileWritten = toml::from_str(text).map_err(|error| RulesError::Written {
            file: file.to_owned(),
            detail: error.to_string(),
        })?;
        let rules = written.rule.into_iter().map(|it| Rule::check(it, file));
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// The rules in use: those of the administrator's file [`RULES_FILE`], where there is
    /// one, before those that come with Penstock. `file` is for the errors.
    pub fn in_use(added: Option<&str>, file: &str) -> Result<Self, RulesError> {
        match added {
            Some(text) => Ok(Self::read(text, file)?.before_compiled_in()),
            None => Ok(COMPILED_IN.clone()),
        }
    }

    /// The rules in use for a configuration file: the administrator's own stand beside it.
    pub fn beside(configuration: &Path) -> Result<Self, RulesError> {
        let path = configuration.with_file_name(RULES_FILE);
        let name = path.display().to_string();
        let added = match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(RulesError::Unread {
                    file: name,
                    kind: error.kind(),
                    detail: error.to_string(),
                });
            }
        };
        Self::in_use(added.as_deref(), &name)
    }

    /// These rules first, then those that come with Penstock.
    pub fn before_compiled_in(mut self) -> Self {
        self.rules.extend(COMPILED_IN.rules.iter().cloned());
        self
    }

    /// What the first matching rule says; none when no rule knows the words.
    pub fn judge(&self, refusal: &Refusal<'_>) -> Option<Finding> {
        let text = normal(refusal.text);
        let server = refusal.server.to_ascii_lowercase();
        let rule = self
            .rules
            .iter()
            .find(|it| it.matches(refusal, &text, &server))?;
        Some(Finding {
            class: rule.class,
            action: rule.action,
            remedy: rule.remedy.clone(),
            rule: rule.name.clone(),
            fallback: false,
        })
    }

    /// Every rule, for showing them.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The samples that another rule, or none, judges.
    fn misjudged(&self, file: &str) -> impl Iterator<Item = RulesError> {
        let samples = self
            .rules
            .iter()
            .flat_map(|rule| rule.samples.iter().map(move |it| (rule, it)));
        samples.filter_map(move |(rule, sample)| {
            let read = super::bounce::Said::read(&sample.reply);
            let mut refusal = read.refusal();
            refusal.stage = sample.stage.or(refusal.stage);
            refusal.server = &sample.server;
            let judged = self.judge(&refusal).map(|it| it.rule);
            (judged.as_ref() != Some(&rule.name)).then(|| RulesError::Sample {
                file: file.to_owned(),
                rule: rule.name.clone(),
                sample: sample.reply.clone(),
                judged: judged.unwrap_or_else(|| "no rule".to_owned()),
            })
        })
    }
}

/// One rule: all its conditions hold, or it says nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name, unique in its file.
    pub name: String,
    /// What the refusal is about.
    pub class: Class,
    /// What is done.
    pub action: Action,
    /// What somebody could change.
    pub remedy: String,
    /// Real replies that it is for.
    pub samples: Vec<Sample>,
    stages: Vec<Stage>,
    codes: Vec<String>,
    statuses: Vec<StatusPattern>,
    words: Vec<Words>,
    also: Vec<Words>,
    without: Vec<Words>,
    servers: Vec<String>,
}

/// A real reply, and who published it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The reply as it was published.
    pub reply: String,
    /// At which point it is said, where the source tells.
    pub stage: Option<Stage>,
    /// The host that says it, where that matters.
    pub server: String,
    /// The software or provider that says it.
    pub system: String,
    /// Where it is published.
    pub source: String,
}

impl Rule {
    fn check(written: RuleWritten, file: &str) -> Result<Self, RulesError> {
        let name = written.name.clone();
        let wrong = |what: String| RulesError::Value {
            file: file.to_owned(),
            rule: name.clone(),
            what,
        };
        let class = Class::from_name(&written.class)
            .ok_or_else(|| wrong(format!("no class {:?}", written.class)))?;
        let action = Action::from_name(&written.action)
            .ok_or_else(|| wrong(format!("no action {:?}", written.action)))?;
        let stage_named =
            |it: &String| Stage::from_name(it).ok_or_else(|| wrong(format!("no stage {it:?}")));
        let stages = written
            .stages
            .iter()
            .map(stage_named)
            .collect::<Result<_, _>>()?;
        for code in &written.codes {
            if code.is_empty() || code.len() > 3 || !code.bytes().all(|it| it.is_ascii_digit()) {
                return Err(wrong(format!("{code:?} is not the front of a reply code")));
            }
        }
        let statuses = written
            .statuses
            .iter()
            .map(|it| {
                StatusPattern::read(it).ok_or_else(|| wrong(format!("no enhanced status {it:?}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let words = |them: &[String]| -> Result<Vec<Words>, RulesError> {
            them.iter()
                .map(|it| Words::read(it).ok_or_else(|| wrong(format!("{it:?} matches anything"))))
                .collect()
        };
        if written.words.is_empty() && statuses.is_empty() {
            return Err(wrong("a rule needs words or statuses".into()));
        }
        let samples = written
            .samples
            .into_iter()
            .map(|it| {
                Ok(Sample {
                    stage: it.stage.as_ref().map(stage_named).transpose()?,
                    reply: it.reply,
                    server: it.server,
                    system: it.system,
                    source: it.source,
                })
            })
            .collect::<Result<_, RulesError>>()?;
        Ok(Self {
            class,
            action,
            remedy: written.remedy,
            samples,
            stages,
            codes: written.codes,
            statuses,
            words: words(&written.words)?,
            also: words(&written.also)?,
            without: words(&written.without)?,
            servers: written
                .servers
                .iter()
                .map(|it| it.to_ascii_lowercase())
                .collect(),
            name: written.name,
        })
    }

    /// Stage, code and status that are not known stand in no rule's way: a person who
    /// pastes words alone wants them explained, too.
    fn matches(&self, refusal: &Refusal<'_>, text: &str, server: &str) -> bool {
        let any = |them: &[Words]| them.is_empty() || them.iter().any(|it| it.within(text));
        let stage = refusal
            .stage
            .is_none_or(|it| self.stages.is_empty() || self.stages.contains(&it));
        let code = refusal.code.is_none_or(|it| {
            self.codes.is_empty()
                || self
                    .codes
                    .iter()
                    .any(|front| it.to_string().starts_with(front))
        });
        let status = match refusal.enhanced {
            _ if self.statuses.is_empty() => true,
            Some(status) => self.statuses.iter().any(|it| it.covers(status)),
            None => !self.words.is_empty(),
        };
        stage
            && code
            && status
            && (self.servers.is_empty() || self.servers.iter().any(|it| server.contains(it)))
            && any(&self.words)
            && any(&self.also)
            && !self.without.iter().any(|it| it.within(text))
    }
}

/// `5.7.1`, or `x.7.1` for any class.
#[derive(Debug, Clone, Copy, PartialEq)]
struct StatusPattern {
    class: Option<u8>,
    subject: u16,
    detail: u16,
}

impl StatusPattern {
    fn read(text: &str) -> Option<Self> {
        let (class, status) = match text.strip_prefix("x.") {
            Some(rest) => (None, format!("5.{rest}").parse::<EnhancedStatus>().ok()?),
            None => {
                let status = text.parse::<EnhancedStatus>().ok()?;
                (Some(status.class), status)
            }
        };
        Some(Self {
            class,
            subject: status.subject,
            detail: status.detail,
        })
    }

    fn covers(&self, status: EnhancedStatus) -> bool {
        self.class.is_none_or(|it| it == status.class)
            && self.subject == status.subject
            && self.detail == status.detail
    }
}

/// Words to find, in this order; `*` stands for anything between them.
///
/// The first word begins where a word of the text begins, unless a `*` stands before it.
#[derive(Debug, Clone, PartialEq)]
struct Words {
    pieces: Vec<String>,
    anywhere: bool,
}

impl Words {
    fn read(written: &str) -> Option<Self> {
        let pieces: Vec<String> = written
            .split('*')
            .map(normal)
            .filter(|it| !it.is_empty())
            .collect();
        (!pieces.is_empty()).then(|| Self {
            pieces,
            anywhere: written.starts_with('*'),
        })
    }

    /// One pass from left to right: the first place of each piece is good enough,
    /// because an earlier place leaves more text for the next one.
    fn within(&self, text: &str) -> bool {
        let mut from = 0;
        for (number, piece) in self.pieces.iter().enumerate() {
            let place = if number == 0 && !self.anywhere {
                find_at_word(text, piece)
            } else {
                text[from..].find(piece.as_str())
            };
            match place {
                Some(place) => from += place + piece.len(),
                None => return false,
            }
        }
        true
    }
}

fn find_at_word(text: &str, piece: &str) -> Option<usize> {
    text.match_indices(piece)
        .map(|(place, _)| place)
        .find(|place| {
            !text[..*place]
                .chars()
                .next_back()
                .is_some_and(char::is_alphanumeric)
        })
}

/// Lower case, one space between words, straight quotes, and without the code and
/// status that open each line: what servers vary without meaning anything by it.
fn normal(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAXIMUM_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut shown = String::with_capacity(end);
    for line in text[..end].lines() {
        for word in without_codes(line).split_whitespace() {
            if !shown.is_empty() {
                shown.push(' ');
            }
            for letter in word.chars().flat_map(char::to_lowercase) {
                shown.push(match letter {
                    '\u{2018}' | '\u{2019}' | '`' | '\u{b4}' => '\'',
                    '\u{201c}' | '\u{201d}' | '\u{201e}' => '"',
                    other => other,
                });
            }
        }
    }
    shown
}

/// Takes `550-5.7.1 ` or the like off the front of a line.
fn without_codes(line: &str) -> &str {
    let mut rest = line.trim_start();
    if let Some((code, behind)) = rest.split_at_checked(3)
        && code.bytes().all(|it| it.is_ascii_digit())
        && behind.starts_with(['-', ' '])
    {
        rest = behind[1..].trim_start();
    }
    match rest.split_once(char::is_whitespace) {
        Some((status, behind)) if status.parse::<EnhancedStatus>().is_ok() => behind,
        _ => rest,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileWritten {
    #[serde(default)]
    rule: Vec<RuleWritten>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleWritten {
    name: String,
    class: String,
    action: String,
    remedy: String,
    #[serde(default)]
    stages: Vec<String>,
    #[serde(default)]
    codes: Vec<String>,
    #[serde(default)]
    statuses: Vec<String>,
    #[serde(default)]
    words: Vec<String>,
    #[serde(default)]
    also: Vec<String>,
    #[serde(default)]
    without: Vec<String>,
    #[serde(default)]
    servers: Vec<String>,
    #[serde(default)]
    samples: Vec<SampleWritten>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleWritten {
    reply: String,
    #[serde(default)]
    stage: Option<String>,
    #[serde(default)]
    server: String,
    system: String,
    source: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ours() -> Rules {
        Rules::parse(include_str!("rules.toml"), "rules.toml").unwrap()
    }

    #[test]
    fn every_rule_judges_its_own_samples_and_has_one() {
        let rules = ours();
        let wrong: Vec<_> = rules.misjudged("").map(|it| it.to_string()).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let mut names = BTreeSet::new();
        for rule in rules.iter() {
            assert!(!rule.samples.is_empty(), "{} has no sample", rule.name);
            assert!(names.insert(&rule.name), "{} stands twice", rule.name);
            let sentences = rule.remedy.matches(". ").count() + 1;
            assert!(
                rule.remedy.ends_with('.') && sentences <= 2,
                "{}: a remedy is one or two sentences",
                rule.name
            );
            for sample in &rule.samples {
                assert!(
                    sample.source.starts_with("http") || sample.source.starts_with("RFC"),
                    "{}: a source is an address: {:?}",
                    rule.name,
                    sample.source
                );
            }
        }
    }

    #[test]
    fn the_rules_of_the_manual_are_taken_as_they_stand_there() {
        let manual = include_str!("../../docs/refusals.md");
        let mut read = 0;
        for block in manual.split("```toml\n").skip(1) {
            let (block, _) = block.split_once("```").unwrap();
            let rules = Rules::read(block, "docs/refusals.md").unwrap();
            assert!(rules.iter().all(|it| !it.samples.is_empty()));
            read += rules.iter().count();
        }
        assert!(read > 0);
    }

    #[test]
    fn an_unknown_key_or_value_is_refused_with_its_place() {
        let error = Rules::read("[[rule]]\nnam = 'x'", "mine.toml").unwrap_err();
        assert!(error.to_string().starts_with("mine.toml: "), "{error}");
        let rule = "[[rule]]\nname='x'\nclass='spam'\naction='delete'\nremedy='r.'\nwords=['x']";
        let error = Rules::read(rule, "mine.toml").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"mine.toml: rule "x": no action "delete""#
        );
    }

    #[test]
    fn the_rules_of_an_administrator_come_first() {
        let mine = "[[rule]]\nname='mine'\nclass='spam'\naction='fail-message'\nremedy='r.'\nwords=['unable to relay']";
        let rules = Rules::read(mine, "mine.toml").unwrap().before_compiled_in();
        let refusal = Refusal {
            code: Some(550),
            text: "5.7.1 Unable to relay",
            ..Refusal::default()
        };
        assert_eq!(rules.judge(&refusal).unwrap().rule, "mine");
    }

    #[test]
    fn without_a_file_of_the_administrator_the_rules_are_ours() {
        assert_eq!(&Rules::in_use(None, "").unwrap(), Rules::compiled_in());
        let error = Rules::in_use(Some("[[rule]]"), "/etc/penstock/rules.toml").unwrap_err();
        assert!(error.to_string().contains("/etc/penstock/rules.toml: "));
    }

    #[test]
    fn words_begin_at_a_word_and_stars_stand_for_anything() {
        let within = |words: &str, text: &str| Words::read(words).unwrap().within(&normal(text));
        assert!(within("quota exceeded", "Your  Quota\n exceeded."));
        assert!(!within("relay", "prerelay"));
        assert!(within("*relay", "prerelay"));
        assert!(within("not * allowed", "550 5.7.1 not at all allowed"));
        assert!(!within("allowed * not", "not allowed"));
        assert!(within("isn't", "550 isn\u{2019}t"));
        assert_eq!(Words::read("*"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in "\\PC{0,300}", code in proptest::option::of(0u16..1000)) {
            let refusal = Refusal { code, text: &text, ..Refusal::default() };
            let _ = Rules::compiled_in().judge(&refusal);
        }
    }

    #[test]
    fn samples_come_from_many_systems_the_three_of_the_product_among_them() {
        let rules = ours();
        let samples: Vec<_> = rules.iter().flat_map(|it| &it.samples).collect();
        let systems: BTreeSet<_> = samples.iter().map(|it| &it.system).collect();
        assert!(samples.len() >= 150, "{}", samples.len());
        assert!(systems.len() >= 25, "{systems:?}");
        for said in [
            "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
            "5.7.1 Unable to relay",
            "550 High probability of spam",
        ] {
            assert!(samples.iter().any(|it| it.reply == said), "{said}");
        }
    }
}
