//! How things stand, at a glance: is anyone not being told?
//!
//! One sentence on top answers that, and what follows says what needs somebody, the gravest first. What counts as what is one
//! function over plain values ([`OverviewPage::needs`]), so that it reads like a table and is tested like one.

use askama::Template;

use super::{Approval, Channel, Frame, Lane, Section, Standing, Text, Views};

/// The first page.
#[derive(Debug, Template)]
#[template(path = "overview.html", config = "src/console/askama.toml")]
pub struct OverviewPage {
    /// What is around it.
    pub frame: Frame,
    /// Those that wait for an answer, those that expire first: at most ten.
    pub waiting: Vec<Approval>,
    /// How many more wait than these.
    pub more_wait: usize,
    /// Whether this worker has read what is asked for.
    pub known: bool,
    /// Every channel, in the order of the configuration.
    pub channels: Vec<Channel>,
    /// Those of them that have not flowed for so long that somebody should know.
    pub long: Vec<Text>,
    /// Who sees them so.
    pub views: Views,
    /// What is counted.
    pub counts: Counts,
}

/// What is counted of this worker.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Whether it reaches the broker.
    pub connected: bool,
    /// Whether the configuration last read is the one in use.
    pub sound: bool,
    /// Dead letters of all workers that could be asked.
    pub dead_letters: u64,
    /// Decisions that it has read since it started.
    pub decisions: u64,
    /// Those of them that were CRITICAL and that no channel wanted.
    pub critical_unrouted: u64,
}

/// How grave something is that needs somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Somebody is not being told.
    Untold,
    /// Somebody was not told, or will not be, unless it is looked at.
    Look,
}

/// Something that needs somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    weight: Weight,
    /// What, in one sentence without its stop.
    what: Text,
    /// More of it: what an endpoint said, an operator's reason.
    why: Option<Text>,
    /// Where something can be done about it, and what that is called.
    way: Option<(String, &'static str)>,
}

impl Need {
    fn look(&self) -> &'static str {
        match self.weight {
            Weight::Untold => "bad",
            Weight::Look => "warn",
        }
    }
}

impl OverviewPage {
    /// Everything that needs somebody, the gravest first.
    pub(super) fn needs(&self) -> Vec<Need> {
        let mut needs = Vec::new();
        let mut need = |weight, what: String, why: Option<Text>, way| {
            needs.push(Need { weight, what: Text::long(&what), why, way });
        };
        if !self.counts.connected {
            let what = "This worker does not reach the broker: it tells nobody, and what it shows may be old";
            need(Weight::Untold, what.to_owned(), None, None);
        }
        if self.channels.is_empty() {
            let way = (String::from("/channels"), "Channels");
            need(Weight::Untold, String::from("There is no channel: nobody is told of anything"), None, Some(way));
        }
        for channel in &self.channels {
            if let Some((weight, what)) = trouble(channel, self.long.contains(&channel.id)) {
                need(weight, what, channel.why.clone(), Some((format!("/channels/{}", channel.id), "Open")));
            }
        }
        if !self.views.missing.is_empty() {
            let workers = counted(u64::try_from(self.views.missing.len()).unwrap_or(u64::MAX), "worker");
            need(Weight::Look, format!("{workers} could not be asked: whom they tell is not known"), None, None);
        }
        if self.counts.dead_letters > 0 {
            let what = format!("{} {}", counted(self.counts.dead_letters, "dead letter"), self.stores());
            need(Weight::Look, what, None, Some((String::from("/dead-letters"), "Look at them")));
        }
        if self.counts.critical_unrouted > 0 {
            let what = format!(
                "{} matched no channel since this worker started",
                counted(self.counts.critical_unrouted, "CRITICAL decision")
            );
            need(Weight::Look, what, None, Some((String::from("/channels"), "Channels")));
        }
        if !self.counts.sound {
            let what = "The configuration that was last read was refused: the worker runs with the one before";
            let why = Text::short("its log lists every fault; `interven-alerts check` does, too");
            need(Weight::Look, what.to_owned(), Some(why), None);
        }
        needs.sort_by_key(|need: &Need| need.weight);
        needs
    }

    /// The one sentence, and its look.
    pub(super) fn verdict(&self) -> (&'static str, &'static str, String) {
        let needs = self.needs();
        let untold = needs.iter().filter(|need| need.weight == Weight::Untold).count();
        match (untold, needs.as_slice()) {
            (0, []) => ("good", "✓", String::from("Everyone is being told.")),
            (0, needs) => {
                let known = if self.views.missing.is_empty() { "" } else { ", as far as is known" };
                ("warn", "!", format!("Everyone is being told{known}; {} to look at.", counted_things(needs.len())))
            }
            (1, [first, ..]) => ("bad", "!", format!("{}.", first.what)),
            // A worker that reaches no broker tells nobody at all, whatever its channels do.
            (_, [first, ..]) if !self.counts.connected => ("bad", "!", format!("{}.", first.what)),
            (count, _) => ("bad", "!", format!("Not everyone is being told: {count} channels need somebody.")),
        }
    }

    /// What stands below the sentence: everything, but what the sentence itself says already.
    fn below(&self) -> Vec<(Need, bool)> {
        let (_, _, verdict) = self.verdict();
        let said = |need: &Need| verdict.strip_suffix('.') == Some(need.what.as_str());
        let below = self.needs().into_iter().map(|need| {
            let said = said(&need);
            (need, said)
        });
        below.filter(|(need, said)| !said || need.why.is_some() || need.way.is_some()).collect()
    }

    /// How many wait in all channels.
    fn waits(&self) -> i64 {
        self.channels.iter().map(Channel::waits).sum()
    }

    /// Where dead letters were counted.
    fn stores(&self) -> String {
        if self.views.several() {
            format!("in the stores of {} workers", self.views.workers)
        } else {
            String::from("in this worker's store")
        }
    }

    /// How many channels flow.
    fn flow(&self) -> usize {
        self.channels.iter().filter(|channel| channel.lane == Lane::Flowing).count()
    }

    /// What the live part says, for those who do not see it.
    fn says(&self) -> String {
        let (_, _, verdict) = self.verdict();
        let approvals = match self.waiting.len() + self.more_wait {
            0 => String::from("Nothing waits for an answer"),
            1 => String::from("1 approval waits for an answer"),
            count => format!("{count} approvals wait for an answer"),
        };
        format!("{verdict} {approvals}")
    }
}

/// Whether somebody must know of a channel, and in which words.
fn trouble(channel: &Channel, long: bool) -> Option<(Weight, String)> {
    let Channel { id, lane, .. } = channel;
    let since = channel.since.as_ref().map_or_else(String::new, |since| format!(" since {}", since.short()));
    match lane {
        // Of a channel without a limit, each worker has a lane of its own.
        Lane::Held if channel.delivers_since() => {
            Some((Weight::Look, format!("{id} is held by a worker{since}; others deliver there")))
        }
        Lane::Held => Some((Weight::Untold, format!("{id} is held: nobody is told there{since}"))),
        Lane::Unreadable => Some((Weight::Untold, format!("{id} cannot be read by a worker: it tells nobody there"))),
        Lane::Stopped => {
            let (by, at) = match &channel.stopped_by {
                Some((by, at)) => (format!(" by {by}"), at.as_ref()),
                None => (String::new(), None),
            };
            let since = at.map_or_else(String::new, |at| format!(" since {}", at.short()));
            Some((Weight::Untold, format!("{id} is paused{by}: nobody is told there{since}")))
        }
        Lane::Paused | Lane::Probing if long => Some((Weight::Untold, format!("{id} waits for its endpoint{since}"))),
        Lane::Paused | Lane::Probing | Lane::Flowing => {
            channel.shortfall().map(|shortfall| (Weight::Untold, format!("{id}: {shortfall}")))
        }
    }
}

/// `1 thing`, `3 things`.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn counted_things(count: usize) -> String {
    counted(u64::try_from(count).unwrap_or(u64::MAX), "thing")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        console::{Missing, When},
        model::Timestamp,
    };

    fn now() -> Timestamp {
        "2026-06-01T12:08:00Z".parse().unwrap()
    }

    fn channel(id: &str, lane: Lane) -> Channel {
        let since = When::new(now().minus(Duration::from_mins(5)), now());
        let stopped = (Text::short("maya"), Some(since.clone()));
        Channel {
            id: Text::short(id),
            kind: Text::short("slack"),
            endpoint: Text::default(),
            lane,
            why: Some(Text::short("HTTP 404: no_service")),
            since: (lane != Lane::Flowing).then_some(since),
            until: None,
            stopped_by: (lane == Lane::Stopped).then_some(stopped),
            events: Vec::new(),
            min_severity: Text::default(),
            narrowed: Vec::new(),
            in_file: true,
            last_success: None,
            waiting: (1, 2),
            delivered: 0,
            folded: 0,
            dead: 0,
            untaken: None,
            behind: None,
            seen: None,
        }
    }

    const WELL: Counts = Counts { connected: true, sound: true, dead_letters: 0, decisions: 9, critical_unrouted: 0 };

    fn page(channels: &[(&str, Lane)], counts: Counts) -> OverviewPage {
        let channels = channels.iter().map(|(id, lane)| channel(id, *lane)).collect();
        let frame = Frame::bare("Overview");
        let (waiting, more_wait, known) = (Vec::new(), 0, true);
        let (long, views) = (vec![Text::short("slow")], Views::default());
        OverviewPage { frame, waiting, more_wait, known, channels, long, views, counts }
    }

    /// The look and the sentence of the verdict, and the weight of everything under it.
    fn said(channels: &[(&str, Lane)], counts: Counts) -> (&'static str, String, Vec<Weight>) {
        let page = page(channels, counts);
        let (look, _, verdict) = page.verdict();
        (look, verdict, page.needs().iter().map(|need| need.weight).collect())
    }

    #[test]
    fn the_first_sentence_says_whether_anyone_is_not_being_told() {
        let well = [("soc", Lane::Flowing), ("short", Lane::Paused), ("probe", Lane::Probing)];
        assert_eq!(said(&well, WELL), ("good", String::from("Everyone is being told."), vec![]));
        for (channel, sentence) in [
            (("soc", Lane::Held), "soc is held: nobody is told there since 12:03 UTC."),
            (("soc", Lane::Stopped), "soc is paused by maya: nobody is told there since 12:03 UTC."),
            (("soc", Lane::Unreadable), "soc cannot be read by a worker: it tells nobody there."),
            (("slow", Lane::Paused), "slow waits for its endpoint since 12:03 UTC."),
        ] {
            let with = [well[0], channel];
            assert_eq!(said(&with, WELL), ("bad", sentence.to_owned(), vec![Weight::Untold]));
        }
        let (look, sentence, _) = said(&[("a", Lane::Held), ("b", Lane::Held), ("c", Lane::Stopped)], WELL);
        assert!(look == "bad" && sentence == "Not everyone is being told: 3 channels need somebody.");
        assert_eq!(said(&[], WELL).1, "There is no channel: nobody is told of anything.");
        let lost = Counts { connected: false, ..WELL };
        for channels in [&well[..], &[("a", Lane::Held)]] {
            assert!(said(channels, lost).1.starts_with("This worker does not reach the broker"), "{channels:?}");
        }
    }

    #[test]
    fn a_lane_that_flows_into_dead_letters_or_is_far_behind_tells_not_everyone() {
        let mut page = page(&[("soc", Lane::Flowing), ("siem", Lane::Flowing)], WELL);
        page.channels[1].untaken = Some(76);
        let (look, _, verdict) = page.verdict();
        let says = "siem: its endpoint has taken none of the last 76: they are dead letters.";
        assert_eq!((look, &*verdict), ("bad", says));
        page.channels[0].behind = Some(When::new(now().minus(Duration::from_mins(30)), now()));
        assert_eq!(page.verdict().2, "Not everyone is being told: 2 channels need somebody.");
        assert_eq!(page.needs()[0].what.as_str(), "soc: its oldest delivery waits since 11:38 UTC");
    }

    #[test]
    fn a_channel_that_others_deliver_to_is_one_to_look_at() {
        for (last, look) in [(6, "bad"), (4, "warn")] {
            let mut page = page(&[("siem", Lane::Held)], WELL);
            page.channels[0].last_success = Some(When::new(now().minus(Duration::from_mins(last)), now()));
            assert_eq!(page.verdict().0, look, "delivered {last} minutes ago, held for 5");
        }
    }

    #[test]
    fn nobody_is_said_to_be_told_whose_worker_could_not_be_asked() {
        let mut page = page(&[("soc", Lane::Flowing)], WELL);
        page.views.missing = vec![Missing { worker: Text::short("w2"), why: Text::short("silent") }];
        let (look, _, verdict) = page.verdict();
        assert_eq!((look, &*verdict), ("warn", "Everyone is being told, as far as is known; 1 thing to look at."));
        assert!(page.says().starts_with(&verdict), "{}", page.says());
        assert_eq!(page.needs()[0].what.as_str(), "1 worker could not be asked: whom they tell is not known");
    }

    #[test]
    fn what_was_not_told_is_to_be_looked_at_and_stands_below_what_is_not_being_told() {
        let look = Counts { dead_letters: 1, critical_unrouted: 3, sound: false, ..WELL };
        let (color, sentence, weights) = said(&[("soc", Lane::Flowing)], look);
        assert_eq!((color, sentence.as_str()), ("warn", "Everyone is being told; 3 things to look at."));
        assert_eq!(weights, [Weight::Look; 3]);
        let page = page(&[("soc", Lane::Held)], look);
        let whats: Vec<String> = page.needs().iter().map(|need| need.what.to_string()).collect();
        assert!(whats[0].starts_with("soc is held") && whats[1].starts_with("1 dead letter in"), "{whats:?}");
        assert!(whats[2].starts_with("3 CRITICAL decisions matched no channel"), "{whats:?}");
        assert_eq!((page.flow(), page.waits()), (0, 3));
        // What the first sentence says is not said again; why, and what can be done, is.
        let below: Vec<bool> = page.below().iter().map(|(_, said)| *said).collect();
        assert_eq!(below, [true, false, false, false]);
    }
}
