//! Checking passwords: dear for whoever guesses, cheap for whoever knows.
//!
//! Argon2 is slow on purpose, so at most two checks run at once, off the async threads.
//! A check costs the same whether the name exists or not, and a failure is answered
//! late. A success is remembered for five minutes: an application that logs in for every
//! message pays once. What is remembered is a MAC under a key that lives only in this
//! process, made of name, stored hash and password: a changed password is forgotten at
//! once, and nothing in memory can be turned back into one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{Secret, User};
use crate::route::Directory;

use super::sasl::Login;
use super::session::Checked;

/// Argon2 takes tens of megabytes each.
const CHECKS_AT_ONCE: usize = 2;
/// More logins than this that wait for their check are told to come again.
const WAITING_MAXIMUM: usize = 64;
/// Of one client.
const WAITING_OF_ONE_MAXIMUM: u32 = 8;
/// How long a success is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How long a failure is held against its client.
const RESENTED: Duration = Duration::from_secs(600);
/// The first failure is answered this late, each further one twice as late.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(8);
/// Entries of either table.
const TABLE_MAXIMUM: usize = 10_000;

/// A hash of nobody's password, with the default costs of argon2.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$\
    bm9ib2R5bm9ib2R5bm9ib2R5$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Where all passwords are checked.
#[derive(Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    places: Semaphore,
    key: [u8; 32],
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    clients: Mutex<HashMap<IpAddr, Client>>,
}

/// What is held against one client.
#[derive(Debug, Clone, Copy)]
struct Client {
    failures: u32,
    waiting: u32,
    last: Instant,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(CHECKS_AT_ONCE)),
            places: Semaphore::new(WAITING_MAXIMUM),
            key: rand::random(),
            remembered: Mutex::default(),
            clients: Mutex::default(),
        }
    }
}

impl Gate {
    /// Checks a login for a client (its address, or the network that stands for it).
    pub async fn check(&self, directory: &Directory, client: IpAddr, login: &Login) -> Checked {
        let user = directory.login(&login.username);
        let stored = user
            .or_else(|| directory.any_login())
            .and_then(|it| it.password_hash.clone());
        let known = user.zip(stored.as_ref());
        let mac = known.map(|(user, stored)| self.mac(user, stored, &login.password));
        if let (Some(user), Some(mac)) = (user, &mac)
            && self.remembers(mac)
        {
            return Checked::Right(login_name(user));
        }
        let Ok(place) = self.places.try_acquire() else {
            return Checked::Busy;
        };
        let Some(_waiting) = Waiting::enter(self, client) else {
            return Checked::Busy;
        };
        let is_right = self.verify(stored, login.password.clone()).await;
        // A late answer costs its own client's places, never those of all.
        drop(place);
        match (user, mac) {
            (Some(user), Some(mac)) if is_right => {
                self.remember(mac);
                self.clients().remove(&client);
                Checked::Right(login_name(user))
            }
            _ => {
                let delay = self.resent(client);
                tokio::time::sleep(delay).await;
                Checked::Wrong
            }
        }
    }

    async fn verify(&self, stored: Option<Secret>, password: Secret) -> bool {
        let Ok(permit) = self.permits.clone().acquire_owned().await else {
            return false;
        };
        let check = move || {
            let _permit = permit;
            let stored = stored.as_ref().map_or(NOBODY, Secret::expose);
            PasswordHash::new(stored).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.expose().as_bytes(), &hash)
                    .is_ok()
            })
        };
        tokio::task::spawn_blocking(check).await.unwrap_or(false)
    }

    fn mac(&self, user: &User, stored: &Secret, password: &Secret) -> [u8; 32] {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.key)
            .expect("a MAC takes a key of any length");
        for part in [&login_name(user), stored.expose(), password.expose()] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    fn remembers(&self, mac: &[u8; 32]) -> bool {
        let remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        remembered.get(mac).is_some_and(|it| *it > Instant::now())
    }

    fn remember(&self, mac: [u8; 32]) {
        let now = Instant::now();
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= TABLE_MAXIMUM {
            remembered.retain(|_, until| *until > now);
        }
        if remembered.len() < TABLE_MAXIMUM {
            remembered.insert(mac, now + REMEMBERED);
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a failure down; how late to answer it.
    fn resent(&self, client: IpAddr) -> Duration {
        let mut clients = self.clients();
        let Some(client) = clients.get_mut(&client) else {
            return LONGEST_DELAY;
        };
        let now = Instant::now();
        if now.duration_since(client.last) > RESENTED {
            client.failures = 0;
        }
        client.last = now;
        client.failures = client.failures.saturating_add(1);
        let doubled = FIRST_DELAY * (1 << (client.failures - 1).min(8));
        doubled.min(LONGEST_DELAY)
    }
}

/// The name of a user's login as the directory has it.
fn login_name(user: &User) -> String {
    match &user.username {
        Some(username) => username.clone(),
        None => crate::route::directory::entry_name(user),
    }
}

/// A client's place in the queue; given back when dropped, however that comes.
struct Waiting<'a> {
    gate: &'a Gate,
    client: IpAddr,
}

impl<'a> Waiting<'a> {
    fn enter(gate: &'a Gate, client: IpAddr) -> Option<Self> {
        let now = Instant::now();
        let mut clients = gate.clients();
        if clients.len() >= TABLE_MAXIMUM {
            clients.retain(|_, it| it.waiting > 0 || now.duration_since(it.last) < RESENTED);
        }
        if clients.len() >= TABLE_MAXIMUM && !clients.contains_key(&client) {
            // Forgetting the oldest failure is better than locking everybody new out.
            let idle = clients.iter().filter(|it| it.1.waiting == 0);
            let oldest = *idle.min_by_key(|it| it.1.last)?.0;
            clients.remove(&oldest);
        }
        let entry = clients.entry(client).or_insert(Client {
            failures: 0,
            waiting: 0,
            last: now,
        });
        if entry.waiting >= WAITING_OF_ONE_MAXIMUM {
            return None;
        }
        entry.waiting += 1;
        drop(clients);
        Some(Self { gate, client })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut clients = self.gate.clients();
        if let Some(client) = clients.get_mut(&self.client) {
            client.waiting = client.waiting.saturating_sub(1);
            if client.waiting == 0 && client.failures == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::PasswordHasher;
    use argon2::{Algorithm, Params, Version};

    use crate::config::UserAddress;
    use crate::route::directory::tests::directory_of;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn jan(password: &str) -> User {
        let cheap = Params::new(64, 1, 1, None).unwrap();
        let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, cheap)
            .hash_password(password.as_bytes())
            .unwrap();
        User {
            address: UserAddress::Mailbox("jan@example.nl".parse().unwrap()),
            aliases: Vec::new(),
            relay: None,
            username: None,
            password_hash: Some(Secret::new(hash.to_string())),
        }
    }

    fn login(username: &str, password: &str) -> Login {
        crate::accept::sasl::login(username, password).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_password_is_right_and_remembered_until_it_changes() {
        let gate = Gate::default();
        let before = directory_of(vec![jan("geheim")]);
        let right = Checked::Right("jan@example.nl".into());
        let good = login("JAN@example.nl", "geheim");
        assert_eq!(gate.check(&before, CLIENT, &good).await, right);
        // Without a permit left, only what is remembered can still succeed.
        let _all = gate.permits.clone().acquire_many_owned(2).await.unwrap();
        assert_eq!(gate.check(&before, CLIENT, &good).await, right);
        let after = directory_of(vec![jan("anders")]);
        let waits =
            tokio::time::timeout(Duration::from_secs(60), gate.check(&after, CLIENT, &good));
        assert!(waits.await.is_err(), "another hash is another password");
        tokio::time::advance(REMEMBERED).await;
        let waits =
            tokio::time::timeout(Duration::from_secs(60), gate.check(&before, CLIENT, &good));
        assert!(waits.await.is_err(), "five minutes are over");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_answered_later_and_later_whether_the_name_exists_or_not() {
        let gate = Gate::default();
        let directory = directory_of(vec![jan("geheim")]);
        let mut waited = Vec::new();
        for name in [
            "jan@example.nl",
            "nobody",
            "jan@example.nl",
            "nobody",
            "x",
            "y",
        ] {
            let start = Instant::now();
            let checked = gate.check(&directory, CLIENT, &login(name, "raden")).await;
            assert_eq!(checked, Checked::Wrong);
            waited.push(start.elapsed().as_millis() / 100);
        }
        assert_eq!(waited, [5, 10, 20, 40, 80, 80]);
        let good = login("jan@example.nl", "geheim");
        assert!(matches!(
            gate.check(&directory, CLIENT, &good).await,
            Checked::Right(_)
        ));
        assert!(gate.clients().is_empty(), "a success forgives");
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_cannot_queue_many_guesses() {
        let gate = Arc::new(Gate::default());
        let directory = Arc::new(directory_of(vec![jan("geheim")]));
        let mut guesses = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (gate, directory) = (gate.clone(), directory.clone());
            guesses.spawn(async move { gate.check(&directory, CLIENT, &login("x", "y")).await });
        }
        let answers = guesses.join_all().await;
        let busy = answers.iter().filter(|it| **it == Checked::Busy).count();
        assert_eq!(busy, 20 - WAITING_OF_ONE_MAXIMUM as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_are_punished_take_nobody_elses_place() {
        let gate = Arc::new(Gate::default());
        let directory = Arc::new(directory_of(vec![jan("geheim")]));
        let mut guesses = tokio::task::JoinSet::new();
        for host in 0..8 {
            for _ in 0..WAITING_OF_ONE_MAXIMUM {
                let (gate, directory) = (gate.clone(), directory.clone());
                let client = IpAddr::from([192, 0, 2, host]);
                guesses
                    .spawn(async move { gate.check(&directory, client, &login("x", "y")).await });
            }
        }
        let failures = || gate.clients().values().map(|it| it.failures).sum::<u32>();
        while failures() < 8 * WAITING_OF_ONE_MAXIMUM {
            tokio::task::yield_now().await;
        }
        // All of them wait for their late answers now.
        let good = login("jan@example.nl", "geheim");
        let checked = gate.check(&directory, CLIENT, &good).await;
        assert!(matches!(checked, Checked::Right(_)), "{checked:?}");
        let answers = guesses.join_all().await;
        assert!(answers.iter().all(|it| *it == Checked::Wrong));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_table_of_failures_forgets_the_oldest_and_locks_nobody_out() {
        let gate = Gate::default();
        let directory = directory_of(vec![jan("geheim")]);
        let host = |it: usize| IpAddr::from(u32::try_from(it).unwrap().to_be_bytes());
        for number in 0..TABLE_MAXIMUM {
            let failed = Client {
                failures: 3,
                waiting: 0,
                last: Instant::now(),
            };
            gate.clients().insert(host(number), failed);
            if number == 0 {
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        }
        let checked = gate.check(&directory, CLIENT, &login("x", "y")).await;
        assert_eq!(checked, Checked::Wrong);
        assert_eq!(gate.clients().len(), TABLE_MAXIMUM);
        assert!(!gate.clients().contains_key(&host(0)));
        assert!(gate.clients().contains_key(&host(1)));
    }

    #[test]
    fn nobodys_hash_is_a_hash() {
        assert!(PasswordHash::new(NOBODY).is_ok());
    }
}
