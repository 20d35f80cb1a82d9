//! Who is connected, and who has to leave when it gets too crowded.
//!
//! A bound for each client and one for all. At a bound the connection that has been
//! idle longest, outside a transaction, makes room: neither a forgotten pool of
//! connections nor a thousand that drip keeps a new one out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::guard::Trust;

/// Within a transaction, a client is sent away only after it was silent for this long.
const SILENCE: Duration = Duration::from_secs(15);

/// Descriptors for everything that is no client: the spool's files, relays, sockets.
const DESCRIPTORS_OF_OTHERS: usize = 256;
/// The socket of a client, and the file that its message may be streamed to.
const DESCRIPTORS_OF_ONE: usize = 2;
/// With fewer descriptors than this leaves, the daemon cannot work anyway.
const TOTAL_MINIMUM: usize = 64;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrowdLimits {
    /// Of all clients together.
    pub total: usize,
    /// Of one client that may submit without a login.
    pub per_friend: usize,
    /// Of any other client; of IPv6, a /64 is one client.
    pub per_stranger: usize,
}

impl Default for CrowdLimits {
    fn default() -> Self {
        Self {
            total: 2_000,
            per_friend: 1_500,
            per_stranger: 100,
        }
    }
}

impl CrowdLimits {
    /// No more than leaves the spool, the relays and the control socket the descriptors
    /// that they need: clients must not be able to stop what goes out.
    pub fn within_descriptors(self) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.within(limit.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX)))
    }

    fn within(self, descriptors: usize) -> Self {
        let total = self
            .total
            .min(descriptors.saturating_sub(DESCRIPTORS_OF_OTHERS) / DESCRIPTORS_OF_ONE)
            .max(TOTAL_MINIMUM);
        Self {
            total,
            // One client alone never takes every place.
            per_friend: self.per_friend.min(total - total / 8),
            per_stranger: self.per_stranger.min(total - total / 8),
        }
    }
}

/// Connections that have no place any more and may read our last word all the same: a
/// part of the descriptors of others.
const LINGERING_MAXIMUM: usize = DESCRIPTORS_OF_OTHERS / 4;

/// Everybody who is connected.
#[derive(Debug, Default)]
pub struct Crowd {
    limits: CrowdLimits,
    present: Mutex<Present>,
    lingering: AtomicUsize,
    origin: Origin,
}

#[derive(Debug)]
struct Origin(Instant);

impl Default for Origin {
    fn default() -> Self {
        Self(Instant::now())
    }
}

#[derive(Debug, Default)]
struct Present {
    next: u64,
    members: HashMap<u64, Arc<Member>>,
    clients: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Member {
    client: IpAddr,
    /// The listener that it came to, once that is told.
    listener: OnceLock<SocketAddr>,
    busy: AtomicU8,
    /// Milliseconds after the crowd's origin at which it last did something whole.
    active: AtomicU64,
    leave: Notify,
}

/// Leave to stay for a moment without a place; given back when dropped.
#[derive(Debug)]
pub struct Lingering(Arc<Crowd>);

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.lingering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How badly a connection is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Busy {
    /// Between transactions.
    Idle = 0,
    /// In a transaction.
    InTransaction = 1,
    /// We are working for it, not it for us: it must not be disturbed.
    Working = 2,
}

/// Why somebody cannot come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowded {
    /// This client has too many connections.
    Client,
    /// There are too many in all.
    Total,
}

/// One connection's place in the crowd; left when dropped.
#[derive(Debug)]
pub struct Seat {
    crowd: Arc<Crowd>,
    number: u64,
    member: Arc<Member>,
}

impl Crowd {
    /// An empty one.
    pub fn new(limits: CrowdLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.present().members.len()
    }

    /// How many are connected to one listener.
    pub fn len_at(&self, listener: SocketAddr) -> usize {
        let members = &self.present().members;
        members
            .values()
            .filter(|it| it.listener.get() == Some(&listener))
            .count()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets a client in, if need be in somebody else's place.
    pub fn enter(self: &Arc<Self>, client: IpAddr, trust: Trust) -> Result<Seat, Crowded> {
        let client = client_key(client);
        let per_client = match trust {
            Trust::Open => self.limits.per_friend,
            Trust::AfterLogin | Trust::Never => self.limits.per_stranger,
        };
        let now = self.milliseconds();
        let mut present = self.present();
        if present.clients.get(&client).copied().unwrap_or(0) >= per_client {
            present
                .send_away(now, Some(client))
                .ok_or(Crowded::Client)?;
        }
        if present.members.len() >= self.limits.total {
            present.send_away(now, None).ok_or(Crowded::Total)?;
        }
        let number = present.next;
        present.next += 1;
        let member = Arc::new(Member {
            client,
            listener: OnceLock::new(),
            busy: AtomicU8::new(Busy::Idle as u8),
            active: AtomicU64::new(now),
            leave: Notify::new(),
        });
        present.members.insert(number, member.clone());
        *present.clients.entry(client).or_default() += 1;
        drop(present);
        Ok(Seat {
            crowd: self.clone(),
            number,
            member,
        })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.origin.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Present {
    /// Asks the least needed connection to leave; its place is free at once.
    fn send_away(&mut self, now: u64, client: Option<IpAddr>) -> Option<()> {
        let silence = u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX);
        let (number, _) = self
            .members
            .iter()
            .filter(|(_, it)| client.is_none_or(|client| it.client == client))
            .filter_map(|(number, it)| {
                let busy = it.busy.load(Ordering::Relaxed);
                let active = it.active.load(Ordering::Relaxed);
                let may_go = busy == Busy::Idle as u8
                    || (busy == Busy::InTransaction as u8 && now.saturating_sub(active) >= silence);
                may_go.then_some((*number, (busy, active)))
            })
            .min_by_key(|(_, need)| *need)?;
        self.remove(number)?.leave.notify_one();
        Some(())
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Member>> {
        let member = self.members.remove(&number)?;
        if let Some(count) = self.clients.get_mut(&member.client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&member.client);
            }
        }
        Some(member)
    }
}

impl Seat {
    /// Tells which listener it came to, by its configured address.
    pub fn came_to(&self, listener: SocketAddr) {
        // Told once, right after it came in.
        self.member.listener.set(listener).ok();
    }

    /// Says that the client did something whole (a command, a message), and how needed
    /// its connection is from now on. A part of a line is nothing whole.
    pub fn active(&self, busy: Busy) {
        self.member.busy.store(busy as u8, Ordering::Relaxed);
        self.member
            .active
            .store(self.crowd.milliseconds(), Ordering::Relaxed);
    }

    /// Leave for the client to read our last word, when its place is somebody else's; none:
    /// too many do already.
    pub fn linger(&self) -> Option<Lingering> {
        let lingering = &self.crowd.lingering;
        let more = |now| (now < LINGERING_MAXIMUM).then_some(now + 1);
        let taken = lingering.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Lingering(self.crowd.clone()))
    }

    /// Resolves when this connection has to make room.
    pub async fn asked_to_leave(&self) {
        self.member.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.present().remove(self.number);
    }
}

/// What counts as one client: an IPv4 address, or the /64 that an IPv6 host owns.
pub fn client_key(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(six) if !six.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(total: usize, each: usize) -> Arc<Crowd> {
        Arc::new(Crowd::new(CrowdLimits {
            total,
            per_friend: each,
            per_stranger: each,
        }))
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    async fn was_sent_away(seat: &Seat) -> bool {
        tokio::time::timeout(Duration::from_millis(1), seat.asked_to_leave())
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_idle_longest_makes_room() {
        let crowd = crowd(3, 3);
        let first = crowd.enter(address(1), Trust::Open).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = crowd.enter(address(2), Trust::Open).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let third = crowd.enter(address(3), Trust::Open).unwrap();
        first.active(Busy::InTransaction);
        let fourth = crowd.enter(address(4), Trust::Open).unwrap();
        assert!(was_sent_away(&second).await);
        assert!(!was_sent_away(&first).await && !was_sent_away(&third).await);
        assert_eq!(crowd.len(), 3);
        drop(second);
        assert_eq!(crowd.len(), 3, "its place was taken already");
        drop((first, third, fourth));
        assert!(crowd.is_empty());
        assert!(crowd.present().clients.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_works_stays_and_whoever_stalls_goes() {
        let crowd = crowd(2, 2);
        let working = crowd.enter(address(1), Trust::Open).unwrap();
        let stalled = crowd.enter(address(2), Trust::Open).unwrap();
        working.active(Busy::Working);
        stalled.active(Busy::InTransaction);
        assert_eq!(
            crowd.enter(address(3), Trust::Open).unwrap_err(),
            Crowded::Total
        );
        tokio::time::advance(SILENCE).await;
        let next = crowd.enter(address(3), Trust::Open).unwrap();
        assert!(was_sent_away(&stalled).await);
        next.active(Busy::Working);
        assert_eq!(
            crowd.enter(address(4), Trust::Open).unwrap_err(),
            Crowded::Total
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_only_crowds_itself_out() {
        let crowd = crowd(10, 2);
        let other = crowd.enter(address(9), Trust::Open).unwrap();
        let first = crowd.enter(address(1), Trust::Open).unwrap();
        let _second = crowd.enter(address(1), Trust::Open).unwrap();
        let third = crowd.enter(address(1), Trust::Open).unwrap();
        assert!(was_sent_away(&first).await || was_sent_away(&_second).await);
        assert!(!was_sent_away(&other).await);
        third.active(Busy::Working);
        assert_eq!(crowd.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_lost_its_place_and_reads_slowly_is_counted_too() {
        let crowd = crowd(1, 1);
        let mut lingering = Vec::new();
        for _ in 0..LINGERING_MAXIMUM {
            let seat = crowd.enter(address(1), Trust::Open).unwrap();
            lingering.push(seat.linger().unwrap());
        }
        let seat = crowd.enter(address(1), Trust::Open).unwrap();
        assert!(seat.linger().is_none());
        lingering.pop();
        assert!(seat.linger().is_some());
        assert!(seat.linger().is_some(), "it was given back");
    }

    #[test]
    fn clients_never_take_the_descriptors_that_delivery_needs() {
        let usual = CrowdLimits::default();
        assert_eq!(usual.within(65_536), usual);
        let few = usual.within(1_024);
        assert_eq!(
            (few.total, few.per_friend, few.per_stranger),
            (384, 336, 100)
        );
        assert_eq!(usual.within(10).total, TOTAL_MINIMUM);
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let key = |text: &str| client_key(text.parse().unwrap()).to_string();
        assert_eq!(key("2001:db8::1:2:3:4"), "2001:db8::");
        assert_eq!(key("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(key("::1"), "::1");
    }
}
