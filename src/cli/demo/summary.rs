//! The end of the demo: whether the numbers add up.

use std::io::{self, Write};

use super::{Account, Screen};

/// One channel: what the worker says, and what its endpoint has.
#[derive(Clone, Debug)]
pub struct Line {
    /// What the worker's metrics say.
    pub account: Account,
    /// How many different decisions the endpoint has.
    pub endpoint_has: u64,
    /// How many messages told a decision again. More than zero is allowed: delivery is at least once.
    pub told_again: u64,
}

impl Line {
    /// Whether the worker's numbers add up, nothing waits, and the endpoint has at least what the worker counts as delivered.
    pub fn adds_up(&self) -> bool {
        self.account.adds_up() && self.account.waiting == 0 && self.endpoint_has >= self.account.delivered
    }
}

/// The numbers of all channels.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How many decisions were published and confirmed.
    pub published: u64,
    /// How many of them the SIEM, which is sent every decision, does not have.
    pub missing_at_siem: u64,
    /// Dead letters that are left in the store.
    pub dead_letters_left: u64,
    /// The channels, in the order of the configuration.
    pub lines: Vec<Line>,
}

impl Summary {
    /// Whether everything is accounted for.
    pub fn adds_up(&self) -> bool {
        self.missing_at_siem == 0 && self.dead_letters_left == 0 && self.lines.iter().all(Line::adds_up)
    }

    pub(super) fn draw<W: Write>(&self, screen: &mut Screen<W>) -> io::Result<()> {
        screen.line(&format!(
            "   {:<17} {:>8} {:>9} {:>10} {:>7} {:>5} {:>8} {:>13} {:>11}",
            "channel", "matched", "replayed", "delivered", "folded", "dead", "waiting", "endpoint has", "told again"
        ))?;
        for line in &self.lines {
            let Account { channel, matched, delivered, folded, dead, replayed, waiting } = &line.account;
            screen.line(&format!(
                "   {:<17} {matched:>8} {replayed:>9} {delivered:>10} {folded:>7} {dead:>5} {waiting:>8} {:>13} {:>11}  {}",
                channel.as_str(),
                line.endpoint_has,
                line.told_again,
                if line.adds_up() { "adds up" } else { "DOES NOT ADD UP" },
            ))?;
        }
        screen.line("")?;
        screen.line("   matched + replayed = delivered + folded + dead + waiting, for every channel")?;
        screen.line(&format!(
            "   {} decisions published, {} missing at the SIEM, {} dead letters left",
            self.published, self.missing_at_siem, self.dead_letters_left
        ))?;
        screen.line(if self.adds_up() {
            "   Every delivery is accounted for: nothing was lost."
        } else {
            "   THE NUMBERS DO NOT ADD UP: this is a bug, please report it with this output."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let channel = "soc-slack".parse().unwrap();
        let account = Account { channel, matched: 10, delivered: 7, folded: 3, dead: 1, replayed: 1, waiting: 0 };
        Line { account, endpoint_has: 7, told_again: 2 }
    }

    fn summary(line: Line) -> Summary {
        Summary { published: 10, missing_at_siem: 0, dead_letters_left: 0, lines: vec![line] }
    }

    #[test]
    fn the_numbers_add_up_only_when_nothing_is_lost_waiting_or_claimed() {
        assert!(summary(line()).adds_up());
        let edits: [fn(&mut Summary); 6] = [
            |summary| summary.lines[0].account.matched += 1,
            |summary| summary.lines[0].account.delivered += 1,
            |summary| {
                summary.lines[0].account.matched += 1;
                summary.lines[0].account.waiting += 1;
            },
            |summary| summary.lines[0].endpoint_has -= 1,
            |summary| summary.missing_at_siem = 1,
            |summary| summary.dead_letters_left = 1,
        ];
        for (number, edit) in edits.iter().enumerate() {
            let mut wrong = summary(line());
            edit(&mut wrong);
            assert!(!wrong.adds_up(), "edit {number}");
            let mut out = Vec::new();
            wrong.draw(&mut Screen::new(&mut out, super::super::Style::Plain)).unwrap();
            assert!(String::from_utf8(out).unwrap().contains("DO NOT ADD UP"), "edit {number}");
        }
    }
}
