//! Every key there is, and which of them are not built yet.
//!
//! A key that is not in these lists is refused before anything is read, so nothing is
//! ever read and ignored. `*` stands for a name that the administrator chooses, `[]`
//! for the entries of an array of tables.

use toml::de::{DeTable, DeValue};

use super::file::{Source, Table};
use super::problem::nearest;

/// The keys of `penstock.toml`.
pub const MAIN_KEYS: &[&str] = &[
    "hostname",
    "default-relay",
    "bounces-via",
    "admin",
    "users",
    "listen[].address",
    "listen[].tls",
    "listen[].auth",
    "listen[].allow-from",
    "listen[].senders",
    "listen[].bare-lf",
    "spool.path",
    "spool.min-free",
    "message.max-size",
    "message.max-recipients",
    "tls.certificate",
    "tls.key",
    "timeouts.idle",
    "timeouts.connect",
    "timeouts.command",
    "timeouts.data",
    "timeouts.final-dot",
    "retry.first",
    "retry.max",
    "retry.expire-after",
    "retry.warn-after",
    "http.admin",
    "http.confirm",
    "http.base-url",
    "hints.dns",
    "hints.dnsbl",
    "hints.rhsbl",
    "hints.*.action",
    "relays.*.server",
    "relays.*.fallback",
    "relays.*.sender",
    "relays.*.login",
    "relays.*.username",
    "relays.*.password",
    "relays.*.password-file",
    "relays.*.password-credential",
    "relays.*.auth",
    "relays.*.tls",
    "relays.*.tls-name",
    "relays.*.ca-file",
    "relays.*.fingerprint",
    "relays.*.reverse-path",
    "relays.*.bulk",
    "relays.*.spf-include",
    "relays.*.outbound-ips",
    "relays.*.verify",
    "relays.*.oauth.provider",
    "relays.*.oauth.tenant",
    "relays.*.oauth.client-id",
    "relays.*.oauth.client-secret",
    "relays.*.oauth.client-secret-file",
    "relays.*.oauth.client-secret-credential",
    "relays.*.oauth.grant",
    "relays.*.oauth.scope",
    "relays.*.oauth.token-url",
    "relays.*.oauth.device-url",
    "relays.*.oauth.ca-file",
    "relays.*.limits.preset",
    "relays.*.limits.batch-messages",
    "relays.*.limits.batch-bytes",
    "relays.*.limits.batch-interval",
    "relays.*.limits.batch-window",
    "relays.*.limits.per-hour",
    "relays.*.limits.per-day",
    "relays.*.limits.recipients-per-message",
    "relays.*.limits.recipients-per-hour",
    "relays.*.limits.recipients-per-day",
    "relays.*.limits.min-interval",
    "relays.*.limits.connections",
    "relays.*.limits.messages-per-connection",
    "relays.*.limits.mailing-limit",
    "relays.*.limits.interactive-share",
];

/// The keys of `users.toml`.
pub const USER_KEYS: &[&str] = &[
    "user[].address",
    "user[].aliases",
    "user[].relay",
    "user[].username",
    "user[].password-hash",
];

/// The features whose keys are known but refused: a key (and everything below it), and
/// the one value that is refused where the others are built.
///
/// Delete the line when the feature is built.
pub const NOT_BUILT: &[(&str, Option<&str>)] = &[];

/// What a key is matched with.
pub(super) struct Known {
    pub keys: &'static [&'static str],
    pub not_built: &'static [(&'static str, Option<&'static str>)],
}

impl Known {
    /// Reports every key that is not known, not built, or a table where a value belongs.
    pub fn check(&self, root: Table) {
        self.check_table(root.source, root.entries(), "", "");
    }

    /// `pattern` and `shown` are the path so far with its dot behind it: as in the
    /// lists above, and as written.
    fn check_table(&self, source: &Source, table: &DeTable, pattern: &str, shown: &str) {
        for (key, value) in table.iter() {
            let line = source.line(key.span().start);
            let path = format!("{shown}{}", key.get_ref());
            let exact = format!("{pattern}{}", key.get_ref());
            let value = value.get_ref();
            if self.keys.contains(&exact.as_str()) {
                self.check_built(source, &exact, &path, value, line);
            } else if self.is_table(&exact) {
                match value {
                    DeValue::Table(table) => {
                        self.check_table(source, table, &format!("{exact}."), &format!("{path}."));
                    }
                    _ => source.wrong(
                        line,
                        &path,
                        "is a table, not a value",
                        &format!("write [{path}] on a line of its own and its keys below"),
                    ),
                }
            } else if self.is_table(&format!("{exact}[]")) {
                self.check_entries(source, value, &exact, &path, line);
            } else if let (true, DeValue::Table(table)) =
                (self.is_table(&format!("{pattern}*")), value)
            {
                self.check_table(source, table, &format!("{pattern}*."), &format!("{path}."));
            } else {
                self.unknown(source, key.get_ref(), pattern, &path, line);
            }
        }
    }

    fn check_entries(
        &self,
        source: &Source,
        value: &DeValue,
        exact: &str,
        path: &str,
        line: Option<usize>,
    ) {
        let entries: Option<Vec<&DeTable>> = value
            .as_array()
            .and_then(|array| array.iter().map(|it| it.get_ref().as_table()).collect());
        let Some(entries) = entries else {
            return source.wrong(
                line,
                path,
                "is a list of tables",
                &format!("write [[{path}]], with two brackets, above the keys of each entry"),
            );
        };
        for table in entries {
            self.check_table(source, table, &format!("{exact}[]."), &format!("{path}."));
        }
    }

    fn is_table(&self, pattern: &str) -> bool {
        self.keys.iter().any(|it| {
            it.strip_prefix(pattern)
                .is_some_and(|it| it.starts_with('.'))
        })
    }

    fn check_built(
        &self,
        source: &Source,
        pattern: &str,
        path: &str,
        value: &DeValue,
        line: Option<usize>,
    ) {
        let missing = self.not_built.iter().find(|(prefix, refused)| {
            let below = pattern
                .strip_prefix(prefix)
                .is_some_and(|it| it.is_empty() || it.starts_with('.'));
            below
                && refused.is_none_or(|refused| match value {
                    DeValue::Boolean(written) => written.to_string() == refused,
                    DeValue::String(written) => written.eq_ignore_ascii_case(refused),
                    _ => false,
                })
        });
        match missing {
            None => {}
            Some((_, None)) => source.wrong(
                line,
                path,
                "is not built yet in this version",
                "leave the key out",
            ),
            Some((_, Some(refused))) => source.wrong(
                line,
                path,
                &format!("{refused} is not built yet in this version"),
                "leave the key out, or choose another value",
            ),
        }
    }

    fn unknown(&self, source: &Source, key: &str, pattern: &str, path: &str, line: Option<usize>) {
        let here: Vec<&str> = self
            .keys
            .iter()
            .filter_map(|it| it.strip_prefix(pattern))
            .map(|it| it.split(['.', '[']).next().unwrap_or(it))
            .filter(|it| *it != "*")
            .collect();
        let elsewhere = || {
            let ending = format!(".{key}");
            self.keys
                .iter()
                .find(|it| **it == key || it.ends_with(&ending))
                .map(|it| it.strip_suffix(&ending).unwrap_or_default())
        };
        let remedy = match (nearest(key, here.iter().copied()), elsewhere()) {
            (Some(near), _) => format!("the nearest known key is {near}"),
            (None, Some("")) => format!("{key} belongs at the top, before the first [table]"),
            (None, Some(place)) => format!("{key} belongs in {}", table_name(place)),
            (None, None) => format!("known here: {}", listed(here)),
        };
        source.wrong(line, path, "is not a known key", &remedy);
    }
}

/// `relays.*.limits` → `[relays.NAME.limits]`, `listen[]` → `[[listen]]`.
fn table_name(pattern: &str) -> String {
    match pattern.strip_suffix("[]") {
        Some(array) => format!("[[{array}]]"),
        None => format!("[{}]", pattern.replace('*', "NAME")),
    }
}

/// Words with commas between, each once.
fn listed(mut words: Vec<&str>) -> String {
    words.dedup();
    words.join(", ")
}
