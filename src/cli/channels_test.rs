//! `channels test`: post one clearly marked sample to a channel's endpoint, and tell what it answered.
//!
//! It goes straight to the endpoint, past queue, pace and state: the question is whether this configuration can deliver, and
//! the answer must not wait behind what waits. It is one try; what a lane would do next is told, not done.

use serde::Serialize;

use super::{Failure, Shell, event, server};
use crate::{
    channels::{Occasion, judging::explain},
    config::{ChannelPlan, Plan},
    lane::post::Post,
    model::{Clock, Verdict, verdict::Outcome},
    settings::printable,
};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  interven-alerts channels test soc-slack
  interven-alerts channels test splunk --json
  interven-alerts channels test soc-slack --server http://alerts:8080

A sample decision titled TEST is posted once, straight to the endpoint. Exit code 0 when the endpoint has it, 1 otherwise. With
`--server` a running worker posts it, from where it runs, with the channel as it has it.")]
pub struct Args {
    /// The id of the channel
    #[arg(value_name = "ID")]
    pub channel: String,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) server: server::Args,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The channel.
    pub channel: String,
    /// Whether the endpoint has the sample.
    pub delivered: bool,
    /// The outcome of the try, as metrics name it.
    pub outcome: &'static str,
    /// The endpoint, masked.
    pub endpoint: String,
    /// The HTTP status, where a reply came.
    pub status: Option<u16>,
    /// What the endpoint said, or why nothing came, in one line without secrets.
    pub reply: String,
    /// What a lane would make of it.
    pub meaning: &'static str,
}

/// Posts one sample to `channel` and judges the reply.
pub async fn test_channel(plan: &Plan, channel: &ChannelPlan, post: &dyn Post, clock: &Clock) -> Report {
    let now = clock.now();
    let occasion = Occasion { now, links: &plan.links, detour: None };
    let parcel = channel.channel.render(&event::sample(channel, now), &occasion);
    let endpoint = parcel.endpoint.secret().masked_url();
    let (status, said, verdict) = match post.post(parcel, channel.timeout).await {
        Ok(reply) => (Some(reply.status.as_u16()), explain(&reply), channel.channel.judge(&reply)),
        Err(trouble) => (None, trouble.as_str().to_owned(), trouble.into()),
    };
    let outcome = verdict.outcome();
    Report {
        channel: channel.id.to_string(),
        delivered: matches!(outcome, Outcome::Delivered | Outcome::Accepted),
        outcome: outcome.as_str(),
        endpoint,
        status,
        // An endpoint may echo a token back at us, and may send what a terminal would obey.
        reply: printable(&plan.scrubber().scrub(&said)),
        meaning: meaning(&verdict),
    }
}

/// What a lane would do, in words for people.
fn meaning(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Delivered { confirmed: true, .. } => "delivered: look for the message titled TEST",
        Verdict::Delivered { confirmed: false, .. } => {
            "accepted: the platform queued it and promises no more, so look whether the message arrived"
        }
        Verdict::TryLater { throttled: true, .. } => "too many: the lane would pause and try again by itself",
        Verdict::TryLater { throttled: false, .. } => {
            "a failure that time may mend: the lane would try again by itself"
        }
        Verdict::Refused { .. } | Verdict::RefusedOne { .. } => "refused: the endpoint does not take this message",
        Verdict::TooLarge { .. } => "too large for the endpoint",
        Verdict::Broken { .. } => "broken: the lane would be held until someone mends the channel or its endpoint",
        Verdict::Moved { .. } => "moved: the lane would follow to the new address; update the configuration",
    }
}

/// Prints the report; a sample that was not delivered is a failure.
pub fn print(args: &Args, report: &Report, shell: &mut Shell<'_>) -> Result<(), Failure> {
    if args.json {
        shell.print_json(report)?;
    } else {
        let Report { channel, endpoint, reply, meaning, .. } = report;
        writeln!(shell.out, "{channel}: posted a sample to {endpoint}\n  reply    {reply}\n  verdict  {meaning}")?;
    }
    if report.delivered {
        Ok(())
    } else {
        Err(Failure::new(format!("the sample was not delivered to `{}`", report.channel)))
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Mutex, time::Duration};

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::{
        channels::Parcel,
        config::{self, testing::KINDS},
        model::{Reply, Timestamp, Trouble},
        settings::Outside,
    };

    /// Answers once, and remembers what it was given.
    struct OnePost {
        answer: Mutex<Option<Result<Reply, Trouble>>>,
        body: Mutex<String>,
    }

    impl Post for OnePost {
        fn post(&self, parcel: Parcel, _: Duration) -> BoxFuture<'_, Result<Reply, Trouble>> {
            *self.body.lock().unwrap() = String::from_utf8(parcel.body.to_vec()).unwrap();
            let answer = self.answer.lock().unwrap().take().expect("one try is all");
            Box::pin(async { answer })
        }
    }

    async fn test(answer: Result<Reply, Trouble>) -> (Report, String) {
        let text =
            "[[channel]]\nid = \"a\"\nkind = \"chat\"\nwebhook_url = \"https://chat.example/hooks/hush-hush-1\"\n";
        let plan = config::parse(text, &Outside::new(&|_| None, Path::new("")), KINDS).unwrap().plan;
        let post = OnePost { answer: Mutex::new(Some(answer)), body: Mutex::default() };
        let report = test_channel(&plan, &plan.channels[0], &post, &Clock::starting_at(Timestamp::UNIX_EPOCH)).await;
        (report, post.body.into_inner().unwrap())
    }

    #[tokio::test]
    async fn a_delivered_sample_is_clearly_a_test() {
        let (report, body) = test(Ok(Reply::new(200, "ok"))).await;
        assert!(report.delivered && report.status == Some(200), "{report:?}");
        assert!(body.contains("DENY TEST of channel a: nothing happened"), "{body}");
    }

    #[tokio::test]
    async fn what_the_endpoint_says_is_told_without_secrets() {
        let (report, _) = test(Ok(Reply::new(404, "no hook /hooks/hush-hush-1 \u{202e}here"))).await;
        assert_eq!((report.delivered, report.outcome), (false, "broken"));
        assert_eq!(report.reply, "HTTP 404: no hook [secret]  here");
    }

    #[tokio::test]
    async fn no_reply_is_told_as_what_it_is() {
        let (report, _) = test(Err(Trouble::Dns)).await;
        assert_eq!((report.delivered, report.status, report.reply.as_str()), (false, None, "dns failure"));
    }
}
