//! Steps that fail on order.

use std::io;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use super::Step;

/// What fails next.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Plan>);

#[derive(Debug, Default)]
struct Plan {
    failing: Vec<(Step, u32, u32, i32)>,
    room: Option<u64>,
    short: bool,
    stalls: Vec<Stall>,
}

#[derive(Debug)]
struct Stall {
    step: Step,
    reached: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

impl Faults {
    /// Lets `skip` such steps pass, then makes `times` of them fail with `errno`.
    pub fn fail(&self, step: Step, skip: u32, times: u32, errno: i32) {
        self.0
            .lock()
            .unwrap()
            .failing
            .push((step, skip, times, errno));
    }

    /// Makes the next such step take time: it tells when it is reached, and goes on when
    /// it is told to, or nobody is left to tell it.
    pub fn stall(&self, step: Step) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let ((reached, is_reached), (tell, go_on)) = (mpsc::channel(), mpsc::channel());
        self.0.lock().unwrap().stalls.push(Stall {
            step,
            reached,
            go_on,
        });
        (is_reached, tell)
    }

    /// The disk takes this many more octets; none: it has room again.
    pub fn disk_room(&self, room: Option<u64>) {
        self.0.lock().unwrap().room = room;
    }

    pub fn take(&self, step: Step) -> io::Result<()> {
        let stall = {
            let stalls = &mut self.0.lock().unwrap().stalls;
            let at = stalls.iter().position(|it| it.step == step);
            at.map(|it| stalls.remove(it))
        };
        if let Some(stall) = stall {
            stall.reached.send(()).ok();
            stall.go_on.recv_timeout(Duration::from_secs(120)).ok();
        }
        for (at, skip, times, errno) in &mut self.0.lock().unwrap().failing {
            if *at != step {
                continue;
            }
            if *skip > 0 {
                *skip -= 1;
            } else if *times > 0 {
                *times -= 1;
                return Err(io::Error::from_raw_os_error(*errno));
            }
        }
        Ok(())
    }

    pub fn write_room(&self, wanted: usize) -> usize {
        let mut plan = self.0.lock().unwrap();
        let Some(room) = plan.room else { return wanted };
        let taken = wanted.min(room as usize);
        plan.short = taken < wanted;
        // What did not fit is cut off again, and takes no room.
        if !plan.short {
            plan.room = Some(room - taken as u64);
        }
        taken
    }

    /// A write that did not fit fails like one on a full disk.
    pub fn short_write(&self) -> io::Result<()> {
        let short = std::mem::take(&mut self.0.lock().unwrap().short);
        if short {
            return Err(io::Error::from_raw_os_error(28));
        }
        Ok(())
    }
}
