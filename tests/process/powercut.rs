//! Promise 1, the power-cut half: whatever was acknowledged is there after a power cut at
//! any moment, or was settled before, and what was settled is not sent again.
//!
//! A recorder (`tools/powercut` of the folder `shared` beside this repository, or
//! `PENSTOCK_POWERCUT`) writes down all file operations of the daemon under load. Its
//! replayer then makes, cut by cut, the directory that could be left, and [`image`] looks
//! into each: what was not synced may be lost, reordered or torn.
//!
//! The recorded daemon and the look into one image are this same test binary, started
//! again with the environment set: they are no tests by themselves.
//!
//! ```text
//! PENSTOCK_CUT_MODES=strict PENSTOCK_CUTS=1000 cargo test --test process powercut:: -- --ignored --nocapture
//! ```

mod image;
mod recorded;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Cuts that are made of one recording: no two recordings are alike.
const CUTS_OF_ONE_RECORDING: usize = 250;
/// Second cuts that are made of one recovery.
const CUTS_OF_ONE_RECOVERY: usize = 10;

/// What a disk may do, and at which moments it is asked to.
const MODES: [(&str, &[&str]); 4] = [
    // A name is durable only when its directory was synced.
    ("strict", &["--dir", "strict"]),
    // Any sync also commits every earlier change of a directory.
    ("ext4", &["--dir", "ext4"]),
    // Blocks of 512 octets survive or not, each for itself.
    ("torn", &["--dir", "strict", "--torn", "512"]),
    // The second cut comes while the daemon recovers from the first, or soon after.
    ("second", &["--dir", "strict"]),
];

/// Cuts of each mode: few in CI; a long run says how many.
fn cuts() -> usize {
    std::env::var("PENSTOCK_CUTS").map_or(60, |it| it.parse().unwrap())
}

/// The modes of this run: all, or those that `PENSTOCK_CUT_MODES` names.
fn modes() -> Vec<(&'static str, &'static [&'static str])> {
    let Ok(named) = std::env::var("PENSTOCK_CUT_MODES") else {
        return MODES.to_vec();
    };
    let find = |name| MODES.into_iter().find(|it| it.0 == name);
    named
        .split(',')
        .map(|name| find(name).unwrap_or_else(|| panic!("no mode is called {name}: {MODES:?}")))
        .collect()
}

#[test]
#[ignore = "needs gcc, python3 and shared/tools/powercut; .ci/run has them"]
fn acknowledged_mail_survives_a_power_cut_at_any_moment() {
    let workshop = Workshop::open();
    for (name, options) in modes() {
        let mut left = cuts();
        while left > 0 {
            let cuts = left.min(CUTS_OF_ONE_RECORDING);
            left -= cuts;
            let recording = workshop.record("first", None);
            recording.is_complete();
            recording.is_looked_into();
            match name {
                "second" => workshop.cut_twice(&recording, options, cuts),
                _ => recording.sweep(name, options, cuts, left),
            }
            recording.remove();
        }
        println!("{name}: {}", workshop.looks());
    }
}

/// The tools and a folder in memory: a thousand images are written.
struct Workshop {
    tool: PathBuf,
    own: PathBuf,
    place: tempfile::TempDir,
}

impl Workshop {
    fn open() -> Self {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tools/powercut");
        let tool = std::env::var_os("PENSTOCK_POWERCUT").map_or(beside, PathBuf::from);
        assert!(
            tool.join("powercut.c").exists(),
            "no powercut in {}: put shared/ beside the repository, or name its folder in PENSTOCK_POWERCUT",
            tool.display()
        );
        let mut folder = tempfile::Builder::new();
        folder.prefix("penstock-cut-");
        let place = folder.tempdir_in("/dev/shm");
        let place = place.or_else(|_| folder.tempdir()).unwrap();
        run(Command::new("gcc")
            .args(["-O2", "-w", "-fPIC", "-shared", "-o"])
            .arg(place.path().join("powercut.so"))
            .arg(tool.join("powercut.c"))
            .args(["-ldl", "-lpthread"]));
        Self {
            tool,
            own: std::env::current_exe().unwrap(),
            place,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn replayer(&self, mode: &str) -> Command {
        let mut command = Command::new("python3");
        command.arg(self.tool.join("powercut.py")).arg(mode);
        command
    }

    /// Records a daemon under load: on an empty disk, or on what a power cut left.
    fn record(&self, name: &str, base: Option<Image>) -> Recording<'_> {
        let it = Recording {
            workshop: self,
            state: self.path(&format!("{name}.state")),
            log: self.path(&format!("{name}.log")),
            base,
        };
        match &it.base {
            Some(image) => {
                run(Command::new("cp")
                    .arg("-r")
                    .arg(&image.place)
                    .arg(&it.state));
            }
            None => std::fs::create_dir(&it.state).unwrap(),
        }
        let mut recorded = Command::new(&self.own);
        recorded
            .args(["--ignored", "--exact", recorded::NAME, "--nocapture"])
            .env(recorded::STATE, &it.state)
            .env("POWERCUT_DIR", &it.state)
            .env("POWERCUT_LOG", &it.log)
            .env("LD_PRELOAD", self.path("powercut.so"));
        if it.base.is_some() {
            recorded.env(recorded::AGAIN, "1");
        }
        let said = run(&mut recorded);
        for line in said.lines().filter(|it| it.starts_with("recorded: ")) {
            println!("{line}");
        }
        it
    }

    /// Cuts, lets the daemon recover, and cuts again: many times.
    fn cut_twice(&self, first: &Recording<'_>, options: &[&str], cuts: usize) {
        for round in 0..cuts.div_ceil(CUTS_OF_ONE_RECOVERY) {
            let image = first.image(round, options);
            let recovery = self.record("second", Some(image));
            recovery.is_complete();
            recovery.sweep("second", options, CUTS_OF_ONE_RECOVERY, round);
            recovery.remove();
        }
    }

    /// What all looks since the last question found, in one line.
    fn looks(&self) -> String {
        let path = self.path("looks");
        let sum = image::Look::sum(&std::fs::read_to_string(&path).unwrap());
        std::fs::remove_file(path).unwrap();
        assert!(sum.present > 0, "nothing was ever there to be lost");
        sum.to_string()
    }
}

/// A directory that a power cut could leave, and what was claimed before it.
struct Image {
    place: PathBuf,
    claims: PathBuf,
}

/// All file operations of a daemon, in order.
struct Recording<'a> {
    workshop: &'a Workshop,
    state: PathBuf,
    log: PathBuf,
    base: Option<Image>,
}

impl Recording<'_> {
    fn replayer(&self, mode: &str) -> Command {
        let mut command = self.workshop.replayer(mode);
        command.arg(&self.log);
        command.arg("--out").arg(self.workshop.path("image"));
        if let Some(base) = &self.base {
            command.arg("--base").arg(&base.place);
            command.arg("--prior-acks").arg(&base.claims);
        }
        command
    }

    /// Nothing escaped the recorder, or the cuts would prove nothing.
    fn is_complete(&self) {
        let verified = run(self.replayer("verify").arg("--real").arg(&self.state));
        assert!(verified.contains("identical"), "{verified}");
    }

    /// A look that finds nothing missing where something is would prove nothing, either.
    fn is_looked_into(&self) {
        let claims = self.workshop.path("false.acks");
        std::fs::write(&claims, "S 999999999\n").unwrap();
        let look = self.workshop.look(&self.state, &claims).output().unwrap();
        assert!(!look.status.success());
        let missed = String::from_utf8_lossy(&look.stderr).into_owned();
        assert!(missed.contains("lost: [999999999]"), "{missed}");
    }

    /// The image of one cut, somewhere.
    fn image(&self, round: usize, options: &[&str]) -> Image {
        let said = run(self.workshop.replayer("info").arg(&self.log));
        let operations: usize = said.split(' ').next().unwrap().parse().unwrap();
        // Spread over the whole recording, the set-up left out.
        let cut = operations / 20 + (round * 7919) % (operations - operations / 20);
        let place = self.workshop.path("cut");
        let out = run(self
            .workshop
            .replayer("one")
            .arg(&self.log)
            .arg("--out")
            .arg(&place)
            .args(["--cut", &cut.to_string()])
            .args(["--seed", &round.to_string()])
            .args(options));
        assert!(out.contains("image"), "{out}");
        let claims = place.with_extension("acks");
        // What was only under way at the first cut is not held against the second.
        let claimed = std::fs::read_to_string(&claims).unwrap() + "cut\n";
        std::fs::write(&claims, claimed).unwrap();
        Image { place, claims }
    }

    fn sweep(&self, name: &str, options: &[&str], cuts: usize, seed: usize) {
        let kept = self.workshop.path("bad");
        let check = format!(
            "{}={} {}={{img}} {}={{acks}} {} --ignored --exact {} --nocapture",
            image::LOOKS,
            self.workshop.path("looks").display(),
            image::PLACE,
            image::CLAIMS,
            self.workshop.own.display(),
            image::NAME
        );
        let swept = self
            .replayer("sweep")
            .args(["--cuts", &cuts.to_string(), "--check", &check])
            .args(["--seed", &seed.to_string()])
            .args(options)
            .arg("--keep-bad")
            .arg(&kept)
            .output()
            .unwrap();
        let swept = String::from_utf8_lossy(&swept.stdout).into_owned();
        if kept.exists() {
            let look = self.workshop.look(&kept, &kept.with_extension("acks"));
            panic!("{name}: {swept}\n{}", said(look));
        }
        assert!(
            swept.contains(&format!("\"cuts\": {cuts}, \"bad\": 0")),
            "{name}: {swept}"
        );
    }

    fn remove(self) {
        std::fs::remove_dir_all(&self.state).unwrap();
        std::fs::remove_file(&self.log).unwrap();
    }
}

impl Workshop {
    /// The look into one image.
    fn look(&self, place: &Path, claims: &Path) -> Command {
        let mut look = Command::new(&self.own);
        look.args(["--ignored", "--exact", image::NAME, "--nocapture"])
            .env(image::PLACE, place)
            .env(image::CLAIMS, claims);
        look
    }
}

fn said(mut command: Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said =
        String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}");
    said
}
