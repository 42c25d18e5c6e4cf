//! What goes wrong, to whom, when and for how long: all of it thrown before the run, from the seed alone.
//!
//! Each victim has a track of its own, one bout after the other, so that two faults never meet in one place while everything
//! else may happen at once. A bout that is over is healed.

use std::{ops::Range, time::Duration};

use fastrand::Rng;

use crate::support::relay::Side;

/// Workers in the pool.
pub(super) const WORKERS: usize = 4;

/// Endpoints that fail. There are others, which never do.
pub(super) const ENDPOINTS: usize = 7;

/// How many of those are behind a wire that breaks.
pub(super) const ENDPOINT_WIRES: usize = 3;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bout<T> {
    /// When, from the beginning of the run.
    pub(super) at: Duration,
    /// For how long.
    pub(super) lasts: Duration,
    /// What.
    pub(super) what: T,
}

/// How a process ends. The bout lasts until it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// `kill -9`.
    Killed,
    /// SIGTERM.
    Asked,
}

/// How a wire breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Every connection is reset.
    Cut,
    /// One direction of every connection ends.
    HalfClosed(Side),
    /// Nothing arrives, and nobody is told.
    Silent,
    /// Everything arrives so much later.
    Slow(Duration),
}

/// How an endpoint fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Nobody listens on its port.
    Away,
    /// It never answers; it may have taken the message.
    Hangs(bool),
    /// It resets connections; it may have taken the message.
    Resets(bool),
    /// It answers with what is not HTTP; it may have taken the message.
    Garbage(bool),
    /// It asks for a second of rest, every time.
    Throttles,
    /// Every failure in its platform's table that needs no operator, and every broken connection, between successes.
    Fails(u64),
    /// Every reply in its platform's table, and every broken connection, between successes.
    Everything(u64),
    /// One reply of those that need an operator.
    Broken(u64),
}

/// What an operator does to the configuration of all workers, and takes back when the bout is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// Limits, batches and times of channels change.
    Changed,
    /// The file cannot be understood.
    Faulty,
    /// There is one more channel; in the end it is removed, whatever waits for it.
    Guest,
}

/// Everything that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// How long.
    pub(super) length: Duration,
    /// To the workers.
    pub(super) workers: Vec<Vec<Bout<Death>>>,
    /// To the broker.
    pub(super) broker: Vec<Bout<Death>>,
    /// To the wires between the workers and the broker.
    pub(super) wires: Vec<Vec<Bout<Fault>>>,
    /// To the endpoints.
    pub(super) endpoints: Vec<Vec<Bout<Mood>>>,
    /// To the wires between the workers and some endpoints.
    pub(super) endpoint_wires: Vec<Vec<Bout<Fault>>>,
    /// To the disk of the last worker: it is full.
    pub(super) disk: Vec<Bout<()>>,
    /// To the configuration.
    pub(super) edits: Vec<Bout<Edit>>,
}

/// How often and for how long, in milliseconds.
struct Habit {
    calm: Range<u64>,
    bout: Range<u64>,
}

impl Plan {
    /// The plan of this seed.
    pub(super) fn of(seed: u64, length: Duration) -> Self {
        let mut dice = Rng::with_seed(seed);
        let mut tracks = Tracks { dice: &mut dice, length };
        let worker = Habit { calm: 4_000..14_000, bout: 0..2_000 };
        let broker = Habit { calm: 10_000..35_000, bout: 0..2_000 };
        let wire = Habit { calm: 2_000..10_000, bout: 500..8_000 };
        let endpoint = Habit { calm: 1_000..8_000, bout: 500..5_000 };
        let disk = Habit { calm: 3_000..12_000, bout: 2_000..8_000 };
        let edit = Habit { calm: 1_000..6_000, bout: 1_000..6_000 };
        Self {
            length,
            workers: tracks.many(WORKERS, &worker, death),
            // A crash is what costs; a stop in order is what every upgrade does.
            broker: tracks.one(&broker, |dice| if dice.u8(0..4) == 0 { Death::Asked } else { Death::Killed }),
            wires: tracks.many(WORKERS, &wire, fault),
            endpoints: tracks.many(ENDPOINTS, &endpoint, mood),
            endpoint_wires: tracks.many(ENDPOINT_WIRES, &wire, fault),
            disk: tracks.one(&disk, |_| ()),
            edits: tracks.one(&edit, edit_of),
        }
    }
}

struct Tracks<'a> {
    dice: &'a mut Rng,
    length: Duration,
}

impl Tracks<'_> {
    fn many<T>(&mut self, count: usize, habit: &Habit, pick: impl Fn(&mut Rng) -> T) -> Vec<Vec<Bout<T>>> {
        (0..count).map(|_| self.one(habit, &pick)).collect()
    }

    fn one<T>(&mut self, habit: &Habit, pick: impl Fn(&mut Rng) -> T) -> Vec<Bout<T>> {
        // Dice of its own, so that a longer run begins like a shorter one.
        let mut dice = self.dice.fork();
        let millis = |range: &Range<u64>, dice: &mut Rng| Duration::from_millis(dice.u64(range.clone()));
        let mut bouts = Vec::new();
        let mut at = millis(&(0..habit.calm.end), &mut dice);
        loop {
            let (what, lasts) = (pick(&mut dice), millis(&habit.bout, &mut dice));
            if at >= self.length {
                return bouts;
            }
            bouts.push(Bout { at, lasts: lasts.min(self.length.saturating_sub(at)), what });
            at += lasts + millis(&habit.calm, &mut dice);
        }
    }
}

fn death(dice: &mut Rng) -> Death {
    if dice.bool() { Death::Killed } else { Death::Asked }
}

fn edit_of(dice: &mut Rng) -> Edit {
    match dice.u8(0..3) {
        0 => Edit::Changed,
        1 => Edit::Faulty,
        _ => Edit::Guest,
    }
}

fn fault(dice: &mut Rng) -> Fault {
    match dice.u8(0..10) {
        0..4 => Fault::Cut,
        4..6 => Fault::HalfClosed(if dice.bool() { Side::Client } else { Side::Server }),
        6..8 => Fault::Silent,
        _ => Fault::Slow(Duration::from_millis(dice.u64(5..300))),
    }
}

fn mood(dice: &mut Rng) -> Mood {
    match dice.u8(0..20) {
        0..3 => Mood::Away,
        3..5 => Mood::Hangs(dice.bool()),
        5..7 => Mood::Resets(dice.bool()),
        7 => Mood::Garbage(dice.bool()),
        8..11 => Mood::Throttles,
        11..16 => Mood::Fails(dice.u64(..)),
        16..19 => Mood::Everything(dice.u64(..)),
        _ => Mood::Broken(dice.u64(..)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::discriminant;

    #[test]
    fn the_same_seed_breaks_the_same_things_and_a_longer_run_begins_like_a_shorter_one() {
        let plan = |seed, seconds| Plan::of(seed, Duration::from_secs(seconds));
        assert_eq!(plan(7, 60), plan(7, 60));
        assert_ne!(plan(7, 60), plan(8, 60));
        let (short, long) = (plan(7, 30), plan(7, 300));
        let sound = short.workers.iter().zip(&long.workers).all(|(short, long)| {
            let whole = short.len().saturating_sub(1);
            long.len() > short.len() && short[..whole] == long[..whole]
        });
        assert!(sound, "{short:?}\n{long:?}");
    }

    /// The kinds of faults that a plan has not.
    fn lacking(plan: &Plan) -> Vec<String> {
        let mut lacking = Vec::new();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                lacking.push(what.to_owned());
            }
        };
        let deaths: Vec<Death> = plan.workers.iter().flatten().map(|bout| bout.what).collect();
        must(deaths.contains(&Death::Killed) && deaths.contains(&Death::Asked), "both deaths of workers");
        must(plan.workers.iter().all(|track| !track.is_empty()), "a death for each worker");
        must(plan.broker.iter().any(|bout| bout.what == Death::Killed), "a death of the broker");
        must(!plan.disk.is_empty(), "a full disk");
        for one in [Edit::Changed, Edit::Faulty, Edit::Guest] {
            must(plan.edits.iter().any(|bout| bout.what == one), &format!("{one:?} configuration"));
        }
        must(plan.endpoint_wires.iter().all(|track| !track.is_empty()), "a fault for each wire to an endpoint");
        let faults: Vec<Fault> = plan.wires.iter().flatten().map(|bout| bout.what).collect();
        for one in [Fault::Cut, Fault::HalfClosed(Side::Client), Fault::Silent, Fault::Slow(Duration::ZERO)] {
            let there = faults.iter().any(|fault| discriminant(fault) == discriminant(&one));
            must(there, &format!("{one:?} of a worker's wire"));
        }
        let moods: Vec<Mood> = plan.endpoints.iter().flatten().map(|bout| bout.what).collect();
        for one in [
            Mood::Away,
            Mood::Hangs(true),
            Mood::Resets(true),
            Mood::Garbage(true),
            Mood::Throttles,
            Mood::Fails(0),
            Mood::Everything(0),
            Mood::Broken(0),
        ] {
            let there = moods.iter().any(|mood| discriminant(mood) == discriminant(&one));
            must(there, &format!("{one:?} of an endpoint"));
        }
        lacking
    }

    #[test]
    fn the_short_run_of_the_suite_has_every_kind_of_fault() {
        let lacking_of = |seed| lacking(&Plan::of(seed, super::super::LENGTH));
        let found = lacking_of(super::super::SEED);
        let better = (0..100_000).find(|seed| lacking_of(*seed).is_empty());
        assert!(found.is_empty(), "it lacks {found:?}; a seed whose run lacks nothing: {better:?}");
    }
}
