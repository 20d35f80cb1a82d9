//! What the log remembers, and what a process finds that comes back.

use std::collections::BTreeMap;

use penstock::release::{Ledger, Release};
use penstock::spool::{Amount, FlowKey, FlowSummary, Lease, LedgerEvent, Recovered, Released};

use super::World;

impl World {
    pub(super) fn write(&mut self, event: LedgerEvent) {
        // What was given back carries no reading of the clocks.
        let is_read = !matches!(
            event,
            LedgerEvent::Released {
                released: Released::NotSent,
                ..
            }
        );
        let before = self.last_logged.last().copied().filter(|_| !is_read);
        self.last_logged.push(before.unwrap_or(self.wall));
        self.log.push((self.now, event));
    }

    /// The spool begins a new segment.
    pub fn checkpoint(&mut self) {
        let bytes = self.release.ledger().to_bytes(self.moment());
        self.checkpoint = (Some(bytes), self.log.len());
        self.last_logged.push(self.wall);
    }

    /// The process dies; what was under way may or may not have been taken. It comes
    /// back `down` later, perhaps after a boot with the wall clock set back by `back`.
    pub fn crash(&mut self, down: u64, reboot: Option<i64>) {
        // What was written in the last 100 ms and did not have to be synced may be lost.
        while let Some((at, LedgerEvent::Released { .. })) = self.log.last()
            && *at + 100 >= self.now
            && self.log.len() > self.checkpoint.1
            && self.dice.percent(50)
        {
            self.log.pop();
            self.last_logged.pop();
        }
        for transaction in std::mem::take(&mut self.running) {
            let taken = transaction.taken.is_some() && self.dice.percent(60);
            if taken {
                let begun = transaction.taken.unwrap().min(self.now);
                self.observe(&transaction.grant, transaction.limits.clone(), begun);
                // It is in doubt, and not sent again.
                let message = self.messages.get_mut(&transaction.grant.id).unwrap();
                message.item.recipients -= transaction.grant.recipients;
            }
        }
        self.messages.retain(|_, it| it.item.recipients > 0);
        self.now += down;
        if let Some(back) = reboot {
            self.boot += 1;
            self.booted = self.now.saturating_sub(7_000);
            // A step forward that nothing in the log has seen is the documented exception.
            let logged = self.last_logged.last().copied().unwrap_or(self.wall);
            self.wall = (self.wall - back).min(logged);
        }
        let mut open: BTreeMap<u64, Lease> = BTreeMap::new();
        let mut last_grant = 0;
        for (_, event) in &self.log {
            match event {
                LedgerEvent::Leased(lease) => {
                    last_grant = last_grant.max(lease.items[0].grant);
                    open.insert(lease.items[0].grant, lease.clone());
                }
                LedgerEvent::Released { grant, .. } => {
                    open.remove(grant);
                }
            }
        }
        let later = self.log[self.checkpoint.1..].iter().map(|it| it.1.clone());
        let recovered = Recovered {
            ledger: self.checkpoint.0.clone(),
            later: later.collect(),
            open_leases: open.into_values().collect(),
            last_grant,
            crashed: true,
            ..Recovered::default()
        };
        let ledger = Ledger::recover(&recovered, self.moment()).expect("it was stored well");
        self.release = Release::new(ledger);
        self.answers.clear();
        self.configure();
        self.restore();
        // After a boot this is a must: it is the first reading of the new boot's clocks.
        if reboot.is_some() || self.dice.percent(50) {
            self.checkpoint();
        }
    }

    fn restore(&mut self) {
        let mut summaries: BTreeMap<FlowKey, FlowSummary> = BTreeMap::new();
        self.due.clear();
        for (id, message) in &mut self.messages {
            message.under_way = false;
            let flow = &message.item.flow;
            let summary = summaries
                .entry(flow.clone())
                .or_insert_with(|| FlowSummary {
                    key: flow.clone(),
                    label: String::new(),
                    ready: Amount::default(),
                    deferred: Amount::default(),
                    held: Amount::default(),
                    accepted: 0,
                    recent: self.recent.get(flow).cloned().unwrap_or_default(),
                });
            if message.item.not_before.is_some() {
                self.due.insert((message.due, *id));
            } else {
                summary.ready.messages += 1;
                summary.ready.recipients += u64::from(message.item.recipients);
                summary.ready.wire_bytes += message.item.wire_bytes;
            }
        }
        let now = self.moment();
        for summary in summaries.values() {
            self.release.restore(summary, now);
        }
    }
}
