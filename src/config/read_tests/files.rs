use std::fs;

use super::*;

#[test]
fn the_directory_refuses_clashes_and_unknown_relays() {
    let main = "[relays.own]\nserver = \"a.example\"\n";
    let hash = USERS
        .lines()
        .find(|it| it.starts_with("password-hash"))
        .unwrap();
    refused(
        main,
        &format!(
            "[[user]]\naddress = \"Jan@Bücher.example\"\nrelay = \"own\"\naliases = [\"x@b.example\"]\n{hash}\n\
             [[user]]\naddress = \"x@B.example\"\nrelay = \"own\"\n\
             [[user]]\naddress = \"y@b.example\"\naliases = [\"jan@xn--bcher-kva.example\"]\nrelay = \"onw\"\n\
             [[user]]\naddress = \"@b.example\"\nrelay = \"own\"\naliases = [\"z@b.example\"]\n\
             [[user]]\naddress = \"@B.EXAMPLE\"\nrelay = \"own\"\n\
             [[user]]\naddress = \"z2@b.example\"\nrelay = \"own\"\nusername = \"JAN@xn--bcher-kva.example\"\n{hash}\n\
             [[user]]\naddress = \"no address\"\n\
             [[user]]\naddress = \"w@b.example\"\n\
             [[user]]\naddress = \"v@b.example\"\nrelay = \"own\"\npassword-hash = \"$2y$10$abc\"\n"
        ),
        &[
            "7 user.address: x@b.example already stands in line 4",
            "11 user.aliases: jan@xn--bcher-kva.example already stands in line 2",
            "12 user.relay: there is no relay \"onw\" | write \"own\"",
            "16 user.aliases: cannot be given to the whole domain @b.example",
            "18 user.address: @b.example already stands in line 14",
            "23 user.username: the login name jan@xn--bcher-kva.example already stands in line 2",
            "26 user.address: \"no address\": ",
            "27 user.relay: is not written, and there is no default-relay",
            "32 user.password-hash: is not an argon2 hash",
        ],
    );
}

#[test]
fn a_hash_that_takes_all_memory_is_refused() {
    let main = "default-relay = \"own\"\n[relays.own]\nserver = \"a.example\"\n";
    let user = "[[user]]\naddress = \"a@b.example\"\npassword-hash = \"$argon2id$v=19$m=4000000,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG\"\n";
    refused(main, user, &["3 user.password-hash: takes over 1 GiB"]);
}

#[test]
fn files_with_secrets_must_be_secret() {
    let files = Files::new(WHOLE, USERS);
    load(&files.path("penstock.toml")).unwrap();
    for mode in [0o644, 0o660, 0o641, 0o604, 0o666] {
        files.write("penstock.toml", WHOLE, mode);
        files.refused("has secrets in it, and its mode is 06");
        files.refused("&& chmod 0640 /");
    }
    files.write("penstock.toml", WHOLE, 0o600);
    files.write("users.toml", USERS, 0o644);
    files.refused("users.toml has secrets in it, and its mode is 0644");
    // Who is not root cannot give a file to a stranger's group.
    if rustix::process::geteuid().is_root() {
        files.write("users.toml", USERS, 0o640);
        let users = files.path("users.toml");
        std::os::unix::fs::chown(&users, None, Some(3_999_999_999)).unwrap();
        files.refused("users.toml has secrets in it, and the group 3999999999 may read it");
        files.write("users.toml", USERS, 0o600);
        load(&files.path("penstock.toml")).unwrap();
    }
    // Without a secret the mode does not matter, nor do words that look like one.
    let open = "[relays.own]\nserver = \"a.example\"\nauth = \"none\"\n # password = \"x\"\n";
    files.write("penstock.toml", open, 0o644);
    files.write("users.toml", "", 0o644);
    load(&files.path("penstock.toml")).unwrap();
}

#[test]
fn a_password_comes_from_a_secret_file_beside_the_main_one() {
    let main = "[relays.own]\nserver = \"a.example\"\nusername = \"u\"\npassword-file = \"own.password\"\n";
    let files = Files::new(main, "");
    files.refused("relays.own.password-file cannot read /");
    files.refused("own.password: no such file or directory remedy: create it: install -m 0640");
    files.write("own.password", "secret word\n", 0o640);
    let loaded = load(&files.path("penstock.toml")).unwrap();
    let login = loaded.config.relays["own"].credentials.clone().unwrap();
    assert_eq!(login.password().unwrap().expose(), "secret word");
    files.write("own.password", "two\nlines\n", 0o640);
    files.refused("holds more than a password");
    files.write("own.password", "\n", 0o640);
    files.refused("has an empty password");
    files.write("own.password", "secret", 0o644);
    files.refused("has secrets in it, and its mode is 0644");
}

#[test]
fn missing_files_are_refused_with_what_to_do() {
    let files = Files::new("", "");
    fs::remove_file(files.path("users.toml")).unwrap();
    files.refused(
        "users.toml cannot read this file: no such file or directory remedy: create it, empty if",
    );
    fs::remove_file(files.path("penstock.toml")).unwrap();
    files.refused(
        "penstock.toml cannot read this file: no such file or directory remedy: create it",
    );
    fs::create_dir(files.path("penstock.toml")).unwrap();
    files.refused("it is not a file");
    let files = Files::new(
        "[tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n[relays.own]\nserver = \"a.example:465\"\nca-file = \"/nowhere.pem\"\n",
        "",
    );
    files.write("tls.crt", "x", 0o644);
    files.write("tls.key", "x", 0o644);
    files.refused("relays.own.ca-file cannot read /nowhere.pem: no such file or directory");
    files.refused("tls.key has secrets in it, and its mode is 0644");
}
