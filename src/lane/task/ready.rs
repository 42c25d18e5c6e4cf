//! What may be sent as soon as pace and state allow: two lines, of which the urgent one goes first.
//!
//! An approval that somebody waits for overtakes everything else of its lane here, as its own queue lets it overtake on the
//! broker. How many of the others a digest may tell is counted along the way.

use std::{collections::VecDeque, iter::Chain};

use crate::lane::Errand;

/// The two lines.
#[derive(Debug, Default)]
pub(super) struct Ready {
    urgent: VecDeque<Errand>,
    others: VecDeque<Errand>,
    /// How many of `others` may be folded.
    foldable: usize,
}

impl Ready {
    fn line(&mut self, errand: &Errand) -> &mut VecDeque<Errand> {
        if errand.delivery.is_urgent() {
            return &mut self.urgent;
        }
        self.foldable += usize::from(errand.delivery.may_be_folded());
        &mut self.others
    }

    /// Last of its line.
    pub(super) fn push_back(&mut self, errand: Errand) {
        self.line(&errand).push_back(errand);
    }

    /// First of its line.
    pub(super) fn push_front(&mut self, errand: Errand) {
        self.line(&errand).push_front(errand);
    }

    /// All of them first of their lines, in their order.
    pub(super) fn put_back(&mut self, errands: Vec<Errand>) {
        errands.into_iter().rev().for_each(|errand| self.push_front(errand));
    }

    /// The next one: the first urgent one, or else the first of the others.
    pub(super) fn pop_front(&mut self) -> Option<Errand> {
        self.urgent.pop_front().or_else(|| {
            let errand = self.others.pop_front()?;
            self.foldable -= usize::from(errand.delivery.may_be_folded());
            Some(errand)
        })
    }

    /// Everything that may be folded, in its order.
    pub(super) fn take_foldable(&mut self) -> Vec<Errand> {
        self.foldable = 0;
        let others = std::mem::take(&mut self.others);
        let (foldable, single): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|errand| errand.delivery.may_be_folded());
        self.others = single.into();
        foldable
    }

    /// Everything.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Errand> + use<> {
        self.foldable = 0;
        std::mem::take(&mut self.urgent).into_iter().chain(std::mem::take(&mut self.others))
    }

    /// Only those that `keep` says.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Errand) -> bool) {
        self.urgent.retain(&mut keep);
        self.others.retain(keep);
        self.foldable = self.others.iter().filter(|errand| errand.delivery.may_be_folded()).count();
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.others.len()
    }

    /// How many a digest may tell.
    pub(super) fn foldable(&self) -> usize {
        self.foldable
    }

    /// Whether an urgent one is there.
    pub(super) fn has_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// Whether one is there that is told by itself.
    pub(super) fn has_single(&self) -> bool {
        self.has_urgent() || self.others.len() > self.foldable
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.others.is_empty()
    }

    /// All of them, in the order in which they would go.
    pub(super) fn iter(
        &self,
    ) -> Chain<std::collections::vec_deque::Iter<'_, Errand>, std::collections::vec_deque::Iter<'_, Errand>> {
        self.urgent.iter().chain(&self.others)
    }
}
