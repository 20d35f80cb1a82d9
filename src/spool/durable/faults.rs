//! Steps that fail on order.

use std::io;
use std::sync::Mutex;

use super::Step;

/// What fails next.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Plan>);

#[derive(Debug, Default)]
struct Plan {
    failing: Vec<(Step, u32, u32, i32)>,
    room: Option<u64>,
    short: bool,
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

    /// The disk takes this many more octets; none: it has room again.
    pub fn disk_room(&self, room: Option<u64>) {
        self.0.lock().unwrap().room = room;
    }

    pub fn take(&self, step: Step) -> io::Result<()> {
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
