//! What a lane does at present. Five states, one at a time; `step.rs` says what leads from one to the next.

use tokio::time::Instant;

/// The state of a lane. Source: contract 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// It sends as its pace allows.
    Flowing,
    /// It waits: the endpoint asked for it, or it fails.
    Paused {
        /// Until when; then it probes.
        until: Instant,
        /// What the endpoint said.
        why: String,
    },
    /// One try to find out.
    Probing {
        /// Whether the lane was held, and not just paused.
        held: bool,
        /// Whether the try is under way. Until there is something to try with, a lane that was held is still seen to be.
        trying: bool,
        /// What the endpoint had said.
        why: String,
    },
    /// An operator must act. It probes once in a while all the same.
    Held {
        /// When the next probe is.
        until: Instant,
        /// What the endpoint said.
        why: String,
    },
    /// An operator paused it.
    Stopped,
}

/// What a lane says of itself.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// What it does.
    pub(super) state: LaneState,
    /// Since when it flows, or does not.
    pub(super) since: Instant,
}

impl Told {
    pub(super) fn now(state: LaneState) -> Self {
        Self { state, since: Instant::now() }
    }

    /// From now on `state`. What led from one rest to another one has told nobody anything in between.
    pub(super) fn turn(&mut self, state: LaneState) {
        let flows = |state: &LaneState| matches!(state, LaneState::Flowing);
        if flows(&self.state) != flows(&state) {
            self.since = Instant::now();
        }
        self.state = state;
    }
}

impl LaneState {
    /// The index in [`crate::telemetry::metrics::LANE_STATES`].
    pub const fn index(&self) -> usize {
        match self {
            Self::Flowing => 0,
            Self::Paused { .. } => 1,
            Self::Probing { held: true, trying: false, .. } | Self::Held { .. } => 3,
            Self::Probing { .. } => 2,
            Self::Stopped => 4,
        }
    }

    /// The name in metrics, logs and answers.
    pub const fn as_str(&self) -> &'static str {
        crate::telemetry::metrics::LANE_STATES[self.index()]
    }
}
