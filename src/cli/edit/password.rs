//! Passwords: asked for without showing them, or read from standard input, and hashed.
//! Never an argument: the process list shows those to everybody.

use std::io::{self, IsTerminal, Read};

use anyhow::{Context, anyhow, bail};
use argon2::{Argon2, PasswordHasher};

/// Longer than any password.
const PASSWORD_MAXIMUM: u64 = 4_096;

/// The password of `whom`: typed (twice, if nobody would notice a slip), or the first
/// line of standard input where that is no terminal.
pub fn ask(whom: &str, twice: bool) -> anyhow::Result<String> {
    let password = if io::stdin().is_terminal() {
        let typed = rpassword::prompt_password(format!("Password of {whom}: "))
            .context("cannot ask for the password")?;
        if twice {
            let again = rpassword::prompt_password("The same again: ")
                .context("cannot ask for the password")?;
            if again != typed {
                bail!("the two passwords are not the same; nothing was changed");
            }
        }
        typed
    } else {
        let mut said = String::new();
        io::stdin()
            .take(PASSWORD_MAXIMUM)
            .read_to_string(&mut said)
            .context("cannot read the password from standard input")?;
        said.lines().next().unwrap_or_default().to_owned()
    };
    if password.is_empty() {
        bail!("an empty password; nothing was changed");
    }
    Ok(password)
}

/// The argon2id hash of a password with a new salt, in PHC form.
pub fn hash(password: &str) -> anyhow::Result<String> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|it| it.to_string())
        .map_err(|error| anyhow!("cannot hash the password: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::{PasswordHash, PasswordVerifier};

    #[test]
    fn a_hash_is_argon2id_salted_and_verifies() {
        let made = hash("secret").unwrap();
        assert!(made.starts_with("$argon2id$v=19$"), "{made}");
        assert_ne!(made, hash("secret").unwrap());
        let read = PasswordHash::new(&made).unwrap();
        assert!(Argon2::default().verify_password(b"secret", &read).is_ok());
        assert!(Argon2::default().verify_password(b"Secret", &read).is_err());
    }
}
