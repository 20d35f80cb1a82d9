//! Postfix's own files as text: main.cf and the sources of its look-up tables.
//!
//! Only what is written in text is read: `hash:`, `lmdb:` and their like are read from
//! the file they were made of. Nothing of Postfix is run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Longer than any main.cf or table that a person keeps.
const FILE_MAXIMUM: u64 = 64 * 1024 * 1024;
/// `$a` may stand for `$b`, but not for ever.
const EXPANSION_MAXIMUM: usize = 16;

/// Kinds of tables whose source is a text file of keys and values beside them.
const TEXT_KINDS: [&str; 7] = ["hash", "btree", "lmdb", "dbm", "sdbm", "cdb", "texthash"];

/// main.cf, and where it stands.
#[derive(Debug)]
pub struct MainFile {
    directory: PathBuf,
    parameters: BTreeMap<String, String>,
    /// Lines that say nothing, by their first word: the rest may be a secret.
    without_value: Vec<String>,
    /// Of master.cf: services, and the parameters that they have for themselves.
    services: Vec<(String, Vec<String>)>,
}

/// A look-up table.
#[derive(Debug, Clone, Default)]
pub struct Lookup {
    /// In the order of the files; the first of a key counts.
    pub entries: Vec<(String, String)>,
    /// What a `static:` table says for every key.
    always: Option<String>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

impl MainFile {
    /// Reads `main.cf` in a directory.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("main.cf");
        let text = read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut main = Self::parse(directory, &text);
        let path = directory.join("master.cf");
        // A copy may have been made without it.
        if path.is_file() {
            let text = read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            main.services = services(&text);
        }
        Ok(main)
    }

    fn parse(directory: &Path, text: &str) -> Self {
        let mut parameters = BTreeMap::new();
        let mut without_value = Vec::new();
        for line in logical_lines(text) {
            match line.split_once('=') {
                Some((name, value)) => {
                    parameters.insert(name.trim().to_owned(), value.trim().to_owned());
                }
                None => without_value.extend(line.split_whitespace().next().map(str::to_owned)),
            }
        }
        Self {
            directory: directory.to_owned(),
            parameters,
            without_value,
            services: Vec::new(),
        }
    }

    /// Lines of main.cf without a `=`, by their first word.
    pub fn without_value(&self) -> &[String] {
        &self.without_value
    }

    /// Services of master.cf, each with the parameters that `-o` sets for it alone.
    pub fn services(&self) -> &[(String, Vec<String>)] {
        &self.services
    }

    /// The value of a parameter, `$name` filled in; none if it is not written or empty.
    pub fn get(&self, name: &str) -> Option<String> {
        let value = self.expand(self.parameters.get(name)?, EXPANSION_MAXIMUM);
        Some(value.trim().to_owned()).filter(|it| !it.is_empty())
    }

    /// Whether a parameter says yes.
    pub fn is_yes(&self, name: &str) -> bool {
        self.get(name).as_deref() == Some("yes")
    }

    /// Every parameter that is written with a value.
    pub fn names(&self) -> BTreeSet<&str> {
        let written = self.parameters.iter().filter(|(_, it)| !it.is_empty());
        written.map(|(name, _)| name.as_str()).collect()
    }

    /// Fills in `$name`, `${name}` and `$(name)`; what is not known is left empty.
    fn expand(&self, text: &str, depth: usize) -> String {
        let Some((before, rest)) = text.split_once('$') else {
            return text.to_owned();
        };
        let (name, behind) = match rest.chars().next() {
            Some('$') => return format!("{before}${}", self.expand(&rest[1..], depth)),
            Some('{') => rest[1..].split_once('}').unwrap_or((&rest[1..], "")),
            Some('(') => rest[1..].split_once(')').unwrap_or((&rest[1..], "")),
            _ => {
                let end = rest
                    .find(|it: char| !it.is_ascii_alphanumeric() && it != '_')
                    .unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        let value = match (depth, self.parameters.get(name)) {
            (0, _) => String::new(),
            (_, Some(value)) => self.expand(value, depth - 1),
            (_, None) => self.default(name, depth - 1),
        };
        format!("{before}{value}{}", self.expand(behind, depth))
    }

    fn default(&self, name: &str, depth: usize) -> String {
        match name {
            "config_directory" | "meta_directory" => self.directory.display().to_string(),
            "default_database_type" => "hash".to_owned(),
            "mydomain" => {
                let host = self.expand("$myhostname", depth);
                host.split_once('.')
                    .map_or(String::new(), |(_, domain)| domain.to_owned())
            }
            "myorigin" => self.expand("$myhostname", depth),
            _ => String::new(),
        }
    }

    /// The table that a parameter names, from the text its databases were made of.
    pub fn lookup(&self, parameter: &str) -> Lookup {
        let mut lookup = Lookup::default();
        for map in words(&self.get(parameter).unwrap_or_default()) {
            let map = map.strip_prefix("proxy:").unwrap_or(map);
            match map.split_once(':') {
                Some((kind, path)) if TEXT_KINDS.contains(&kind) => {
                    self.read_table(path, map, &mut lookup);
                }
                None if map.starts_with('/') => self.read_table(map, map, &mut lookup),
                Some(("static", value)) => lookup.always = Some(value.to_owned()),
                _ => lookup.unread.push(format!(
                    "{map} of {parameter}: this kind of table is not read"
                )),
            }
        }
        lookup
    }

    fn read_table(&self, path: &str, map: &str, lookup: &mut Lookup) {
        // A copy of /etc/postfix names its tables where they stood.
        let beside = Path::new(path)
            .file_name()
            .map(|name| self.directory.join(name));
        let mut tried = [beside, Some(PathBuf::from(path))].into_iter().flatten();
        let Some(found) = tried.find(|it| it.is_file()) else {
            lookup.unread.push(format!(
                "{map}: there is no {path}; postmap -s {map} > {path} writes it"
            ));
            return;
        };
        match read(&found) {
            Ok(text) => lookup.entries.extend(table_entries(&text)),
            Err(error) => lookup
                .unread
                .push(format!("{map}: cannot read {}: {error}", found.display())),
        }
    }
}

impl Lookup {
    /// What the table says for a key; look-ups fold to lower case, as Postfix's do.
    pub fn get(&self, key: &str) -> Option<&str> {
        let key = key.to_lowercase();
        let found = self.entries.iter().find(|(it, _)| *it == key);
        found
            .map(|(_, value)| value.as_str())
            .or(self.always.as_deref())
    }
}

/// Words parted by commas or white space.
pub fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(|it: char| it == ',' || it.is_whitespace())
        .filter(|it| !it.is_empty())
}

/// A line that begins with white space continues the one before; comments and empty
/// lines are nothing, also in between (postconf(5), postmap(1)).
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push(' ');
                last.push_str(trimmed);
            }
            _ => lines.push(trimmed.to_owned()),
        }
    }
    lines
}

/// What stands behind `-o` in master.cf, by service (master(5)); the values may be secrets.
fn services(text: &str) -> Vec<(String, Vec<String>)> {
    let mut services = Vec::new();
    for line in logical_lines(text) {
        let mut words = line.split_whitespace();
        let (Some(name), Some(kind)) = (words.next(), words.next()) else {
            continue;
        };
        let mut set = Vec::new();
        while let Some(word) = words.next() {
            // What stands there are the options of another program.
            if word.starts_with("argv=") {
                break;
            }
            let Some(behind) = word.strip_prefix("-o") else {
                continue;
            };
            let next = match behind.trim_start_matches('{') {
                "" => words.find(|it| *it != "{").unwrap_or_default(),
                behind => behind,
            };
            let parameter = next.trim_start_matches('{');
            let parameter = parameter.split('=').next().unwrap_or_default();
            // How it calls itself in the log.
            if !matches!(parameter, "" | "syslog_name") {
                set.push(parameter.to_owned());
            }
        }
        if !set.is_empty() {
            services.push((format!("{name} {kind}"), set));
        }
    }
    services
}

fn table_entries(text: &str) -> Vec<(String, String)> {
    logical_lines(text)
        .iter()
        .filter_map(|line| {
            let (key, value) = line.split_once([' ', '\t'])?;
            Some((key.to_lowercase(), value.trim().to_owned()))
        })
        .collect()
}

fn read(path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path)?.len();
    anyhow::ensure!(size <= FILE_MAXIMUM, "it is too large");
    // Old configurations have comments in Latin-1.
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn main_cf_is_read_as_postfix_reads_it() {
        let text = "# relay\nmyhostname = app01.example.nl\nrelayhost = [smtp.$mydomain]:587\n\
            smtp_sasl_password_maps =\n    hash:${config_directory}/sasl_passwd,\n# no\n\n  texthash:$config_directory/more\n\
            empty =\nloop = $loop\nrelayhost2=$(relayhost)\n";
        let main = MainFile::parse(Path::new("/etc/postfix"), text);
        assert_eq!(main.get("relayhost").unwrap(), "[smtp.example.nl]:587");
        assert_eq!(main.get("relayhost2").unwrap(), "[smtp.example.nl]:587");
        let maps = main.get("smtp_sasl_password_maps").unwrap();
        assert_eq!(
            words(&maps).collect::<Vec<_>>(),
            [
                "hash:/etc/postfix/sasl_passwd",
                "texthash:/etc/postfix/more"
            ]
        );
        assert_eq!((main.get("empty"), main.get("loop")), (None, None));
    }

    #[test]
    fn what_a_service_has_for_itself_is_read_by_name() {
        let text = "# a comment\nsmtp      inet  n - y - - smtpd\n\
            submission inet n - y - - smtpd\n  -o syslog_name=postfix/submission\n\
            \x20 -o smtpd_tls_security_level=encrypt -o { smtpd_banner = two words }\n\
            spam unix - n n - - pipe\n  user=x argv=/usr/sbin/sendmail -oi -f ${sender}\n\
            relay unix - - y - - smtp\n  -o syslog_name=postfix/$service_name\n\
            out unix - - y - - smtp -o smtp_sasl_password_maps=static:u:geheim -osmtp_bind_address=192.0.2.1\n";
        let own = |service: &str, set: &[&str]| {
            (
                service.to_owned(),
                set.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            services(text),
            [
                own(
                    "submission inet",
                    &["smtpd_tls_security_level", "smtpd_banner"]
                ),
                own(
                    "out unix",
                    &["smtp_sasl_password_maps", "smtp_bind_address"]
                ),
            ]
        );
    }

    #[test]
    fn tables_are_read_from_their_text_beside_main_cf() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write(
            "main.cf",
            "a = hash:/etc/postfix/one, proxy:lmdb:/etc/postfix/two\nb = pcre:/etc/postfix/three hash:/nowhere/four\nc = static:u:p\n",
        );
        write(
            "one",
            "# x\nJan@Example.nl\t[smtp.a.example]:587\n@b.example\n   [smtp.b.example]\n",
        );
        write("two", "jan@example.nl other\nx@example.nl y z\n");
        let main = MainFile::open(directory.path()).unwrap();
        let lookup = main.lookup("a");
        assert_eq!(lookup.get("JAN@example.nl"), Some("[smtp.a.example]:587"));
        assert_eq!(lookup.get("@b.example"), Some("[smtp.b.example]"));
        assert_eq!(lookup.get("x@example.nl"), Some("y z"));
        assert!(lookup.unread.is_empty());
        let unread = main.lookup("b").unread;
        assert_eq!(unread.len(), 2, "{unread:?}");
        assert!(
            unread[1].contains("postmap -s hash:/nowhere/four"),
            "{unread:?}"
        );
        assert_eq!(main.lookup("c").get("anything"), Some("u:p"));
        assert!(MainFile::open(Path::new("/nowhere")).is_err());
    }
}
