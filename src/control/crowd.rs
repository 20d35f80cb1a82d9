//! Who is connected to the control socket, and who makes room when there is none.
//!
//! Everybody in the group may open it, and a forgotten script or a hostile one must not
//! lock the administrators out. So the one that asks for nothing goes first, then the one
//! that has stopped reading; of several, one of the user with the most connections.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Connections at once.
pub(super) const CONNECTIONS: usize = 64;
/// Whoever has not read for this long reads something else, or nothing.
const STUCK: Duration = Duration::from_secs(10);

/// Everybody who is connected.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    next: u64,
    /// By number: whoever came first stands first.
    members: BTreeMap<u64, Member>,
}

#[derive(Debug)]
struct Member {
    uid: u32,
    doing: Doing,
    leave: Arc<Notify>,
}

/// What a connection is for at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// It has sent no whole request.
    Nothing,
    /// It waits for its answer.
    Waiting,
    /// It has been given a piece of its answer, and not read it yet.
    Reading(Instant),
}

/// One connection's place; left when dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    leave: Arc<Notify>,
}

impl Crowd {
    /// Lets a connection of this user in, if need be in another one's place; none: all of
    /// them are being answered.
    pub(super) fn enter(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut present = self.present();
        if present.members.len() >= CONNECTIONS {
            present.send_away()?;
        }
        let number = present.next;
        present.next += 1;
        let leave = Arc::new(Notify::new());
        let member = Member {
            uid,
            doing: Doing::Nothing,
            leave: leave.clone(),
        };
        present.members.insert(number, member);
        drop(present);
        Some(Place {
            crowd: self.clone(),
            number,
            leave,
        })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    /// Asks the least needed connection to leave; its place is free at once.
    fn send_away(&mut self) -> Option<()> {
        let mut of_user: HashMap<u32, usize> = HashMap::new();
        for member in self.members.values() {
            *of_user.entry(member.uid).or_default() += 1;
        }
        let need = |it: &Member| match it.doing {
            Doing::Nothing => Some(0),
            Doing::Reading(since) => (since.elapsed() >= STUCK).then_some(1),
            Doing::Waiting => None,
        };
        let candidates = self.members.iter().filter_map(|(number, member)| {
            let fewest_last = usize::MAX - of_user.get(&member.uid).copied().unwrap_or(0);
            Some((need(member)?, fewest_last, *number))
        });
        let (_, _, number) = candidates.min()?;
        self.members.remove(&number)?.leave.notify_one();
        Some(())
    }
}

impl Place {
    /// Says what the connection is for from now on; false: it was sent away.
    pub(super) fn now(&self, doing: Doing) -> bool {
        match self.crowd.present().members.get_mut(&self.number) {
            Some(member) => member.doing = doing,
            None => return false,
        }
        true
    }

    /// Resolves when this connection has to make room.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.present().members.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn was_sent_away(place: &Place) -> bool {
        tokio::time::timeout(Duration::from_millis(1), place.asked_to_leave())
            .await
            .is_ok()
    }

    fn full(crowd: &Arc<Crowd>, uid: u32) -> Vec<Place> {
        (0..CONNECTIONS)
            .map(|_| crowd.enter(uid).unwrap())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asked_for_nothing_the_longest_makes_room() {
        let crowd = Arc::new(Crowd::default());
        let places = full(&crowd, 1000);
        places[0].now(Doing::Waiting);
        let next = crowd.enter(1000).unwrap();
        assert!(was_sent_away(&places[1]).await);
        assert!(!was_sent_away(&places[0]).await && !was_sent_away(&next).await);
        drop(places);
        assert_eq!(crowd.present().members.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_the_most_connections_loses_one_of_them() {
        let crowd = Arc::new(Crowd::default());
        let administrator = crowd.enter(0).unwrap();
        let places: Vec<Place> = (0..1_000).map(|_| crowd.enter(1000).unwrap()).collect();
        assert!(!was_sent_away(&administrator).await);
        assert!(!was_sent_away(places.last().unwrap()).await);
        assert_eq!(crowd.present().members.len(), CONNECTIONS);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_stopped_reading_goes_and_whoever_waits_for_an_answer_stays() {
        let crowd = Arc::new(Crowd::default());
        let places = full(&crowd, 1000);
        for place in &places {
            place.now(Doing::Waiting);
        }
        assert!(crowd.enter(0).is_none(), "all are being answered");
        places[7].now(Doing::Reading(Instant::now()));
        assert!(crowd.enter(0).is_none(), "it may be about to read");
        tokio::time::advance(STUCK).await;
        let _next = crowd.enter(0).unwrap();
        assert!(was_sent_away(&places[7]).await);
    }
}
