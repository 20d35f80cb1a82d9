//! The machine's own name, for greeting with where none is configured.

use std::fs;

/// The machine's name, with its domain where `/etc/hosts` knows it.
pub fn machine_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = match name.trim() {
        "" | "(none)" => "localhost",
        name => name,
    };
    if name.contains('.') {
        return name.to_owned();
    }
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    full_name(name, &hosts).unwrap_or_else(|| name.to_owned())
}

/// What `hostname -f` finds: the first name with a domain in the line that has the short one.
fn full_name(short: &str, hosts: &str) -> Option<String> {
    hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .map(|line| line.split_whitespace().skip(1))
        .filter(|names| names.clone().any(|it| it.eq_ignore_ascii_case(short)))
        .flatten()
        .find(|name| name.contains('.'))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_name_stands_in_the_hosts_file() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 app01.example.nl app01 # app01.other\n";
        assert_eq!(
            full_name("app01", hosts).as_deref(),
            Some("app01.example.nl")
        );
        assert_eq!(full_name("app02", hosts), None);
        assert_eq!(full_name("localhost", hosts), None);
    }
}
