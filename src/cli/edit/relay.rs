//! `relay add`, `relay set` and `relay remove`, as changes to the text of penstock.toml.

use anyhow::{anyhow, bail};
use clap::Args;
use toml_edit::{Array, InlineTable, Item, TableLike, Value};

use super::text;
use crate::config::keys::MAIN_KEYS;
use crate::config::problem::nearest;

/// What can be said of a relay; what is not said stays as it is.
#[derive(Debug, Clone, Default, Args)]
pub struct RelaySettings {
    /// The server, like [smtp.example.nl]:587
    #[arg(long)]
    pub server: Option<String>,
    /// A server to try when the first cannot be reached; may be repeated
    #[arg(long, value_name = "SERVER")]
    pub fallback: Vec<String>,
    /// The address of the relay account
    #[arg(long, value_name = "ADDRESS")]
    pub sender: Option<String>,
    /// The user name to log in with; without --password the old password stays
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// Ask for the password, or read it from standard input; it is never an argument
    #[arg(long, conflicts_with_all = ["password_file", "password_credential"])]
    pub password: bool,
    /// The password stands in this file, 0640 root:penstock
    #[arg(long, value_name = "FILE", conflicts_with = "password_credential")]
    pub password_file: Option<String>,
    /// The password is a credential of the systemd service
    #[arg(long, value_name = "NAME")]
    pub password_credential: Option<String>,
    /// Log in with tokens of this provider instead of a password: microsoft or google
    #[arg(long, value_name = "PROVIDER", conflicts_with_all = ["password", "password_file", "password_credential"])]
    pub oauth: Option<String>,
    /// The id of the application that is registered at the provider
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// The Directory (tenant) ID at Microsoft
    #[arg(long)]
    pub tenant: Option<String>,
    /// The application's secret stands in this file, 0640 root:penstock
    #[arg(long, value_name = "FILE", conflicts_with = "client_secret_credential")]
    pub client_secret_file: Option<String>,
    /// The application's secret is a credential of the systemd service
    #[arg(long, value_name = "NAME")]
    pub client_secret_credential: Option<String>,
    /// login (a person, once) or client-credentials (the application itself)
    #[arg(long)]
    pub grant: Option<String>,
    /// auto, plain, login, cram-md5, xoauth2 or none
    #[arg(long, value_name = "METHOD")]
    pub auth: Option<String>,
    /// implicit, required, opportunistic or off; by default the port decides
    #[arg(long)]
    pub tls: Option<String>,
    /// The name to verify in the certificate
    #[arg(long, value_name = "NAME")]
    pub tls_name: Option<String>,
    /// Certificates to trust instead of the system's, PEM
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<String>,
    /// The only certificate to accept: sha256: and 64 digits
    #[arg(long)]
    pub fingerprint: Option<String>,
    /// What MAIL FROM becomes: keep, from, or an address
    #[arg(long, value_name = "RULE")]
    pub reverse_path: Option<String>,
    /// Whether it accepts large amounts of mail
    #[arg(long, value_name = "true|false")]
    pub bulk: Option<bool>,
    /// What the SPF records of senders must include
    #[arg(long, value_name = "DOMAIN")]
    pub spf_include: Option<String>,
    /// An address from which it delivers; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub outbound_ip: Vec<String>,
    /// Whether it stays inactive until its test message is confirmed
    #[arg(long, value_name = "true|false")]
    pub verify: Option<bool>,
    /// The set of limits: standard, bulk, microsoft-365, gmail, google-workspace,
    /// amazon-ses or unlimited
    #[arg(long)]
    pub preset: Option<String>,
    /// A single limit, like per-hour=600 or batch-bytes=20MB; may be repeated
    #[arg(long, value_name = "LIMIT=VALUE")]
    pub limit: Vec<String>,
    /// Make it the relay for every From that matches no user
    #[arg(long)]
    pub default: bool,
}

/// The keys that a new way to give the password makes pointless.
const PASSWORD_KEYS: [&str; 4] = ["login", "password", "password-file", "password-credential"];
/// The keys that say what an application's secret is.
const SECRET_KEYS: [&str; 3] = [
    "client-secret",
    "client-secret-file",
    "client-secret-credential",
];

impl RelaySettings {
    /// Writes a new relay.
    pub fn add(&self, main: &str, name: &str, password: Option<&str>) -> anyhow::Result<String> {
        let mut exists = false;
        text::change(main, |document| {
            exists = document
                .get("relays")
                .and_then(Item::as_table_like)
                .is_some_and(|it| it.contains_key(name));
            Ok(())
        })?;
        if exists {
            bail!("there is a relay {name} already; to change it: penstock relay set {name}");
        }
        if self.server.is_none() {
            bail!("a new relay needs --server, like --server [smtp.example.nl]:587");
        }
        let block = format!("[relays.{}]\n", text::key(name));
        let added = text::append(main, &block);
        self.set(&added, name, password, &[])
    }

    /// Changes a relay; `unset` are keys to take out.
    pub fn set(
        &self,
        main: &str,
        name: &str,
        password: Option<&str>,
        unset: &[String],
    ) -> anyhow::Result<String> {
        let limits = self.limits()?;
        let mut changed = text::change(main, |document| {
            let relay = text::table_at(document, &["relays", name])
                .map_err(|_| anyhow!("there is no relay {name}; see: penstock relay list"))?;
            for key in unset {
                unset_key(relay, key)?;
            }
            self.put_plain(relay);
            self.put_login(name, relay, password)?;
            self.put_oauth(relay)?;
            self.put_flags(relay);
            put_limits(relay, limits)
        })?;
        if self.default {
            changed = text::put_top(&changed, "default-relay", name)?;
        }
        Ok(changed)
    }

    fn put_plain(&self, relay: &mut dyn TableLike) {
        if let Some(server) = &self.server {
            text::put(relay, "server", server.into());
        }
        for (key, list) in [
            ("fallback", &self.fallback),
            ("outbound-ips", &self.outbound_ip),
        ] {
            if !list.is_empty() {
                let array: Array = list.iter().map(String::as_str).collect();
                text::put(relay, key, array.into());
            }
        }
        for (key, value) in [
            ("sender", &self.sender),
            ("auth", &self.auth),
            ("tls", &self.tls),
            ("tls-name", &self.tls_name),
            ("ca-file", &self.ca_file),
            ("fingerprint", &self.fingerprint),
            ("reverse-path", &self.reverse_path),
            ("spf-include", &self.spf_include),
        ] {
            if let Some(value) = value {
                text::put(relay, key, value.into());
            }
        }
    }

    fn put_flags(&self, relay: &mut dyn TableLike) {
        for (key, value) in [("bulk", self.bulk), ("verify", self.verify)] {
            if let Some(value) = value {
                text::put(relay, key, value.into());
            }
        }
    }

    /// The way in which the login is written stays, unless another one is asked for.
    fn put_login(
        &self,
        name: &str,
        relay: &mut dyn TableLike,
        password: Option<&str>,
    ) -> anyhow::Result<()> {
        let any_password =
            self.password || self.password_file.is_some() || self.password_credential.is_some();
        if any_password && relay.contains_key("oauth") {
            bail!(
                "{name} logs in with tokens, which need no password (penstock relay login {name}); \
                 to change that, give --unset oauth, too"
            );
        }
        let written = |relay: &dyn TableLike, key| {
            let value = relay.get(key)?.as_str()?;
            Some(value.to_owned())
        };
        for (key, value) in [
            ("password-file", &self.password_file),
            ("password-credential", &self.password_credential),
        ] {
            let Some(value) = value else { continue };
            let login = written(relay, "login");
            let old = login.and_then(|it| Some(it.split_once(' ')?.0.to_owned()));
            for old in PASSWORD_KEYS {
                if old != key {
                    relay.remove(old);
                }
            }
            if let Some(username) = self.username.as_ref().or(old.as_ref()) {
                text::put(relay, "username", username.into());
            }
            text::put(relay, key, value.into());
        }
        if let Some(login) = written(relay, "login") {
            let (old_name, old_password) = login.split_once(' ').unwrap_or((&login, ""));
            let username = self.username.as_deref().unwrap_or(old_name);
            let password = password.unwrap_or(old_password);
            if username.contains(' ') {
                relay.remove("login");
                text::put(relay, "username", username.into());
                text::put(relay, "password", password.into());
            } else if self.username.is_some() || password != old_password {
                text::put(relay, "login", format!("{username} {password}").into());
            }
            return Ok(());
        }
        if let Some(username) = &self.username {
            text::put(relay, "username", username.into());
        }
        let Some(password) = password else {
            return Ok(());
        };
        if let Some(file) = written(relay, "password-file") {
            bail!(
                "the password stands in {file}: write the new one there and run penstock reload, \
                 or give --unset password-file, too"
            );
        }
        if let Some(name) = written(relay, "password-credential") {
            bail!(
                "the password is the credential {name} of the service: change it there and \
                 restart the service, or give --unset password-credential, too"
            );
        }
        text::put(relay, "password", password.into());
        Ok(())
    }

    /// Whether its login shall be one with tokens.
    pub fn takes_tokens(&self) -> bool {
        self.oauth_keys().iter().any(|(_, value)| value.is_some())
    }

    fn oauth_keys(&self) -> [(&'static str, &Option<String>); 6] {
        [
            ("provider", &self.oauth),
            ("tenant", &self.tenant),
            ("client-id", &self.client_id),
            ("client-secret-file", &self.client_secret_file),
            ("client-secret-credential", &self.client_secret_credential),
            ("grant", &self.grant),
        ]
    }

    fn put_oauth(&self, relay: &mut dyn TableLike) -> anyhow::Result<()> {
        if !self.takes_tokens() {
            return Ok(());
        }
        if self.oauth.is_some() {
            // Of a password only the name of the mailbox is still of use.
            let login = relay.get("login").and_then(Item::as_str);
            let username = login.and_then(|it| Some(it.split_once(' ')?.0.to_owned()));
            if let (Some(username), false) = (username, relay.contains_key("username")) {
                text::put(relay, "username", username.into());
            }
            for key in PASSWORD_KEYS {
                relay.remove(key);
            }
            if self.auth.is_none() {
                relay.remove("auth");
            }
        }
        let table = table_in(relay, "oauth")?;
        if self.client_secret_file.is_some() || self.client_secret_credential.is_some() {
            for key in SECRET_KEYS {
                table.remove(key);
            }
        }
        for (key, value) in self.oauth_keys() {
            if let Some(value) = value {
                text::put(table, key, value.into());
            }
        }
        Ok(())
    }

    /// The limits that were given, as they are written.
    fn limits(&self) -> anyhow::Result<Vec<(String, Value)>> {
        let mut limits = Vec::new();
        if let Some(preset) = &self.preset {
            limits.push(("preset".to_owned(), preset.into()));
        }
        for limit in &self.limit {
            let (key, value) = limit
                .split_once('=')
                .ok_or_else(|| anyhow!("--limit {limit}: write it like --limit per-hour=600"))?;
            let value = match value.parse::<i64>() {
                Ok(number) => Value::from(number),
                Err(_) => Value::from(value),
            };
            limits.push((key.to_owned(), value));
        }
        Ok(limits)
    }
}

fn put_limits(relay: &mut dyn TableLike, limits: Vec<(String, Value)>) -> anyhow::Result<()> {
    if limits.is_empty() {
        return Ok(());
    }
    let table = table_in(relay, "limits")?;
    for (key, value) in limits {
        text::put(table, &key, value);
    }
    Ok(())
}

/// The table of this name in a relay's, made where it is missing.
fn table_in<'a>(relay: &'a mut dyn TableLike, name: &str) -> anyhow::Result<&'a mut dyn TableLike> {
    if !relay.contains_key(name) {
        relay.insert(name, Item::Value(InlineTable::new().into()));
    }
    relay
        .get_mut(name)
        .and_then(Item::as_table_like_mut)
        .ok_or_else(|| anyhow!("{name} is not a table"))
}

/// Takes out `tls` or `limits.per-hour`.
fn unset_key(relay: &mut dyn TableLike, key: &str) -> anyhow::Result<()> {
    let known: Vec<&str> = MAIN_KEYS
        .iter()
        .filter_map(|it| it.strip_prefix("relays.*."))
        .collect();
    if !known.contains(&key) && key != "limits" && key != "oauth" {
        match nearest(key, known) {
            Some(near) => bail!("--unset {key}: there is no such key; did you mean {near}?"),
            None => bail!("--unset {key}: there is no such key"),
        }
    }
    match key.split_once('.') {
        None => {
            relay.remove(key);
        }
        Some((table, key)) => {
            if let Some(table) = relay.get_mut(table).and_then(Item::as_table_like_mut) {
                table.remove(key);
            }
        }
    }
    Ok(())
}

/// Takes a relay out.
pub fn remove(main: &str, name: &str) -> anyhow::Result<String> {
    let cut = text::cut(main, |path| {
        path.first().is_some_and(|it| it == "relays") && path.get(1).is_some_and(|it| it == name)
    })?;
    // Written in other ways: relays.own = {...}, or relays.own.server = "...".
    let mut found = cut != main;
    let removed = text::change(&cut, |document| {
        let relays = document.get_mut("relays").and_then(Item::as_table_like_mut);
        found |= relays.is_some_and(|it| it.remove(name).is_some());
        Ok(())
    })?;
    if !found {
        bail!("there is no relay {name}; see: penstock relay list");
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AuthMethod, Config};

    const MAIN: &str = "# mine\n[relays.own] # the old one\nserver = \"[a.example]:587\" # here\n\
        login = \"user secret\"\n\n# for later\n#[spool]\n";

    fn settings(change: impl FnOnce(&mut RelaySettings)) -> RelaySettings {
        let mut settings = RelaySettings::default();
        change(&mut settings);
        settings
    }

    #[test]
    fn a_new_relay_is_written_at_the_end() {
        let settings = settings(|it| {
            it.server = Some("[b.example]:587".into());
            it.username = Some("u@b.example".into());
            it.fallback = vec!["[c.example]:587".into()];
            it.preset = Some("gmail".into());
            it.limit = vec!["per-hour=60".into(), "batch-bytes=20MB".into()];
            it.default = true;
        });
        let text = settings.add(MAIN, "new.one", Some("pass word")).unwrap();
        assert_eq!(
            text,
            format!(
                "default-relay = \"new.one\"\n{}\n[relays.\"new.one\"]\nserver = \"[b.example]:587\"\n\
                 fallback = [\"[c.example]:587\"]\nusername = \"u@b.example\"\npassword = \"pass word\"\n\
                 limits = {{ preset = \"gmail\", per-hour = 60, batch-bytes = \"20MB\" }}\n",
                MAIN
            )
        );
        let config = Config::parse(&text, "").unwrap();
        assert_eq!(config.relays["new.one"].limits.per_hour, Some(60));
        assert!(settings.add(&text, "new.one", None).is_err());
        assert!(RelaySettings::default().add(MAIN, "x", None).is_err());
    }

    #[test]
    fn without_a_password_the_old_one_stays() {
        let text = settings(|it| {
            it.server = Some("[b.example]:465".into());
            it.auth = Some("login".into());
        })
        .set(MAIN, "own", None, &[])
        .unwrap();
        assert_eq!(
            text,
            MAIN.replace("[a.example]:587", "[b.example]:465")
                .replace("secret\"\n", "secret\"\nauth = \"login\"\n")
        );
        let named = settings(|it| it.username = Some("other".into()));
        let text = named.set(MAIN, "own", None, &[]).unwrap();
        assert!(text.contains("login = \"other secret\"\n"), "{text}");
        let text = RelaySettings::default()
            .set(MAIN, "own", Some("new"), &[])
            .unwrap();
        assert!(text.contains("login = \"user new\"\n"), "{text}");
        let text = settings(|it| it.username = Some("two words".into()))
            .set(MAIN, "own", None, &[])
            .unwrap();
        let login = Config::parse(&text, "").unwrap().relays["own"]
            .credentials
            .clone()
            .unwrap();
        assert_eq!(
            (login.username.as_str(), login.password().unwrap().expose()),
            ("two words", "secret")
        );
    }

    #[test]
    fn the_password_moves_to_another_place_when_asked() {
        let moved = settings(|it| it.password_credential = Some("own".into()));
        let text = moved.set(MAIN, "own", None, &[]).unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert!(
            text.contains("username = \"user\"\npassword-credential = \"own\"\n"),
            "{text}"
        );
        let error = RelaySettings::default()
            .set(&text, "own", Some("new"), &[])
            .unwrap_err();
        assert!(error.to_string().contains("credential own of the service"));
        let unset = ["password-credential".to_owned()];
        let text = RelaySettings::default()
            .set(&text, "own", Some("new"), &unset)
            .unwrap();
        assert!(
            text.contains("username = \"user\"\npassword = \"new\"\n"),
            "{text}"
        );
    }

    #[test]
    fn keys_are_taken_out_and_unknown_ones_named() {
        let limited = settings(|it| it.limit = vec!["per-hour=5".into(), "per-day=9".into()])
            .set(MAIN, "own", None, &[])
            .unwrap();
        let text = RelaySettings::default()
            .set(
                &limited,
                "own",
                None,
                &["limits.per-hour".into(), "login".into()],
            )
            .unwrap();
        let relay = Config::parse(&text, "").unwrap().relays["own"].clone();
        assert_eq!(
            (relay.limits.per_hour, relay.limits.per_day),
            (Some(1200), Some(9))
        );
        assert_eq!((relay.credentials, relay.auth), (None, AuthMethod::Auto));
        let error = RelaySettings::default().set(MAIN, "own", None, &["tsl".into()]);
        assert!(error.unwrap_err().to_string().contains("did you mean tls?"));
        assert!(
            RelaySettings::default()
                .set(MAIN, "nwo", None, &[])
                .is_err()
        );
    }

    #[test]
    fn a_relay_is_removed_however_it_is_written() {
        assert_eq!(remove(MAIN, "own").unwrap(), "# for later\n#[spool]\n");
        assert_eq!(
            remove("[relays]\nown = { server = \"a\" }\n", "own").unwrap(),
            "[relays]\n"
        );
        assert_eq!(
            remove("relays.own.server = \"a\"\nusers = \"u\"\n", "own").unwrap(),
            "users = \"u\"\n"
        );
        let both = "[relays.own]\nserver = \"a\"\n\n[relays.b]\nserver = \"b\"\n\n[relays.own.limits]\nper-hour = 5\n";
        assert_eq!(
            remove(both, "own").unwrap(),
            "[relays.b]\nserver = \"b\"\n\n"
        );
        assert!(remove(MAIN, "b").is_err());
    }

    #[test]
    fn a_password_makes_way_for_tokens_and_the_mailbox_stays() {
        let tokens = settings(|it| {
            it.oauth = Some("microsoft".into());
            it.client_id = Some("app-1".into());
            it.tenant = Some("example.nl".into());
        });
        let text = tokens.set(MAIN, "own", None, &[]).unwrap();
        assert!(!text.contains("secret"), "{text}");
        let config = Config::parse(&text, "").unwrap();
        let login = config.relays["own"].credentials.as_ref().unwrap();
        assert_eq!(login.username, "user");
        assert_eq!(config.relays["own"].auth, AuthMethod::XOauth2);
        assert!(
            login
                .oauth()
                .unwrap()
                .token_url
                .path()
                .starts_with("/example.nl/")
        );
        let password = settings(|it| it.password = true);
        let refused = password.set(&text, "own", None, &[]).unwrap_err();
        assert!(refused.to_string().contains("--unset oauth"), "{refused}");
        let unset = ["oauth".to_owned(), "username".to_owned()];
        let text = RelaySettings::default()
            .set(&text, "own", None, &unset)
            .unwrap();
        assert!(
            Config::parse(&text, "").unwrap().relays["own"]
                .credentials
                .is_none()
        );
    }
}
