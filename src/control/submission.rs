//! Where programs on this machine hand in mail: said by the daemon beside its control
//! socket, in a file that anybody may read. `sendmail` is called by users who may not look
//! into the configuration.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file's name in whichever directory it stands.
const FILE_NAME: &str = "submission";

/// Where the daemon says it, whose control socket stands there.
pub fn path_beside(control: &Path) -> PathBuf {
    control.with_file_name(FILE_NAME)
}

/// Where the daemon of this machine says it.
pub fn usual_path() -> PathBuf {
    Path::new(super::RUN_DIRECTORY).join(FILE_NAME)
}

/// Which of the listeners that want neither TLS from the start nor a login is the one for
/// programs on this machine: one on loopback before one that takes everything.
pub fn choice(plain: &[SocketAddr]) -> Option<SocketAddr> {
    let loopback = plain.iter().find(|it| it.ip().to_canonical().is_loopback());
    let any = plain.iter().find(|it| it.ip().is_unspecified()).map(|it| {
        let ip = match it.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        SocketAddr::new(ip, it.port())
    });
    loopback.copied().or(any)
}

/// Says it; with nothing to say the file goes.
pub fn write(path: &Path, address: Option<SocketAddr>) -> io::Result<()> {
    let Some(address) = address else {
        return match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    };
    let line = format!("{address}\n");
    // Cut to its length after it was written: whoever reads meanwhile finds the old line
    // or the new one, each whole.
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)?;
    // Whatever the umask.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(line.as_bytes())?;
    file.set_len(line.len() as u64)
}

/// What the daemon said; none: it runs otherwise, or not at all.
pub fn read(path: &Path) -> Option<SocketAddr> {
    fs::read_to_string(path).ok()?.lines().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_can_be_read_by_anybody_and_goes_when_nothing_is_left_to_say() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_beside(&folder.path().join("control.sock"));
        for address in ["[2001:db8::1]:2525", "127.0.0.1:25"] {
            let address = address.parse().unwrap();
            write(&path, Some(address)).unwrap();
            assert_eq!(read(&path), Some(address));
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o644);
        }
        write(&path, None).unwrap();
        write(&path, None).unwrap();
        assert_eq!(read(&path), None);
    }

    #[test]
    fn loopback_comes_first_and_an_address_for_all_has_one_on_loopback() {
        let chosen = |texts: &[&str]| {
            let all: Vec<SocketAddr> = texts.iter().map(|it| it.parse().unwrap()).collect();
            choice(&all).map(|it| it.to_string())
        };
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&["10.0.0.1:25"]), None);
        let both = chosen(&["[::]:587", "127.0.0.2:25"]);
        assert_eq!(both.as_deref(), Some("127.0.0.2:25"));
        assert_eq!(chosen(&["[::]:587"]).as_deref(), Some("[::1]:587"));
    }
}
