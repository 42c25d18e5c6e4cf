//! One list of the lists of many workers: newest first over all, in the memory of one page of each.

use std::collections::VecDeque;

use futures_util::{StreamExt as _, stream};

use super::{AT_ONCE_MAX, Trouble, Unheard};
use crate::dead_letters::{DeadLetter, LetterId, Page};

/// Where pages come from, newest first.
pub trait Source {
    /// How it is called.
    fn name(&self) -> &str;

    /// The page of the letters before this one; the first page without one.
    fn page(&mut self, before: Option<LetterId>) -> impl Future<Output = Result<Page, Trouble>> + Send;
}

/// The letters of many sources, newest first.
#[derive(Debug)]
pub struct Merge<S> {
    lines: Vec<Line<S>>,
    last: Option<LetterId>,
    /// Sources that failed. Each is left out from there on.
    pub unheard: Vec<Unheard>,
    /// Letters that cannot be read any more.
    pub damaged: Vec<LetterId>,
}

#[derive(Debug)]
struct Line<S> {
    source: S,
    letters: VecDeque<DeadLetter>,
    next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    First,
    Before(LetterId),
    End,
}

impl<S: Source> Merge<S> {
    /// The letters of these sources.
    pub fn new(sources: Vec<S>) -> Self {
        Self::before(sources, None)
    }

    /// Those of them that are older than this one.
    pub fn before(sources: Vec<S>, before: Option<LetterId>) -> Self {
        let next = before.map_or(Next::First, Next::Before);
        let line = |source| Line { source, letters: VecDeque::new(), next };
        let lines = sources.into_iter().map(line).collect();
        Self { lines, last: None, unheard: Vec::new(), damaged: Vec::new() }
    }

    /// The newest letter that is left, and the place of its source among the sources.
    pub async fn next(&mut self) -> Option<(DeadLetter, usize)> {
        loop {
            self.fill().await;
            let newest = |(at, line): (usize, &Line<S>)| line.letters.front().map(|letter| (letter.id, at));
            let (id, at) = self.lines.iter().enumerate().filter_map(newest).max()?;
            let letter = self.lines[at].letters.pop_front()?;
            // A worker that was named twice answers twice.
            if self.last.replace(id) != Some(id) {
                return Some((letter, at));
            }
        }
    }

    /// The name of a source.
    pub fn name(&self, at: usize) -> &str {
        self.lines[at].source.name()
    }

    /// Gets a page of each source that has shown all of its last one: without it, nobody knows which letter is the newest.
    async fn fill(&mut self) {
        while self.lines.iter().any(Line::is_hungry) {
            let hungry: Vec<_> = self.lines.iter_mut().filter(|line| line.is_hungry()).map(Line::fill).collect();
            let filled: Vec<_> = stream::iter(hungry).buffer_unordered(AT_ONCE_MAX).collect().await;
            for one in filled {
                match one {
                    Ok(damaged) => self.damaged.extend(damaged),
                    Err(unheard) => self.unheard.push(unheard),
                }
            }
        }
    }
}

impl<S: Source> Line<S> {
    fn is_hungry(&self) -> bool {
        self.letters.is_empty() && self.next != Next::End
    }

    async fn fill(&mut self) -> Result<Vec<LetterId>, Unheard> {
        let before = match self.next {
            Next::First => None,
            Next::Before(id) => Some(id),
            Next::End => return Ok(Vec::new()),
        };
        self.next = Next::End;
        let page = self.source.page(before).await.map_err(|trouble| Unheard::new(self.source.name(), trouble))?;
        self.letters = page.letters.into();
        // A page that goes back would go on for ever.
        let onwards = page.next.filter(|next| before.is_none_or(|before| *next < before));
        self.next = onwards.map_or(Next::End, Next::Before);
        Ok(page.damaged)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{DeathReason, Timestamp};

    /// Has letters with these numbers, two to a page, and fails when it is asked for the page after this many.
    struct Shelf {
        numbers: Vec<u128>,
        fails_after: Option<usize>,
    }

    impl Source for Shelf {
        fn name(&self) -> &'static str {
            "shelf"
        }

        async fn page(&mut self, before: Option<LetterId>) -> Result<Page, Trouble> {
            let rest = self.numbers.iter().filter(|number| before.is_none_or(|before| **number < before.0.as_u128()));
            let rest: Vec<u128> = rest.copied().collect();
            if self.fails_after.is_some_and(|after| self.numbers.len() - rest.len() >= after) {
                return Err(Trouble::Silent(String::from("it broke")));
            }
            let letters: Vec<_> = rest.iter().take(2).map(|number| letter(*number)).collect();
            let next = letters.last().map(|letter| letter.id).filter(|_| rest.len() > 2);
            Ok(Page { letters, damaged: Vec::new(), next })
        }
    }

    fn letter(number: u128) -> DeadLetter {
        let letter = DeadLetter::of_message(bytes::Bytes::new(), DeathReason::Malformed, "", Timestamp::UNIX_EPOCH);
        DeadLetter { id: LetterId(Uuid::from_u128(number)), ..letter }
    }

    async fn merged(shelves: Vec<Shelf>) -> (Vec<u128>, usize) {
        let mut merge = Merge::new(shelves);
        let mut numbers = Vec::new();
        while let Some((letter, _)) = merge.next().await {
            numbers.push(letter.id.0.as_u128());
        }
        (numbers, merge.unheard.len())
    }

    #[tokio::test]
    async fn lists_of_many_workers_become_one_newest_first_and_each_letter_is_told_once() {
        let shelf = |numbers: &[u128]| Shelf { numbers: numbers.to_vec(), fails_after: None };
        let shelves = vec![shelf(&[9, 8, 7, 2, 1]), shelf(&[6, 5, 3]), shelf(&[]), shelf(&[6, 5, 3]), shelf(&[4])];
        assert_eq!(merged(shelves).await, (vec![9, 8, 7, 6, 5, 4, 3, 2, 1], 0));
    }

    #[tokio::test]
    async fn what_the_others_have_is_told_when_one_breaks_off() {
        let breaks = Shelf { numbers: vec![9, 7, 5, 3], fails_after: Some(2) };
        let whole = Shelf { numbers: vec![8, 6, 4], fails_after: None };
        assert_eq!(merged(vec![breaks, whole]).await, (vec![9, 8, 7, 6, 4], 1));
    }
}
