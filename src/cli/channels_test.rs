//! `channels test`: post one clearly marked sample to a channel's endpoint, and tell what it answered. How, is in `managed`.

use std::time::Duration;

use super::{Failure, Shell, event, server};
use crate::{
    config::{ChannelPlan, Plan},
    lane::post::Post,
    managed::{Report, try_channel},
    model::Clock,
};

/// Flags.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  Post a sample from here:
    interven-alerts channels test soc-slack
  Let a running worker post it, from where it runs:
    interven-alerts channels test soc-slack --server http://127.0.0.1:8080

Exit codes:
  0  the endpoint has the sample
  1  it has not: its answer, and what it means, are printed")]
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

/// Posts one sample to `channel` and judges the reply.
pub async fn test_channel(plan: &Plan, channel: &ChannelPlan, post: &dyn Post, clock: &Clock) -> Report {
    let now = clock.now();
    let sample = event::sample(channel, now);
    try_channel(channel, &sample, &plan.links, post, &plan.scrubber(), (now, Duration::MAX)).await
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
