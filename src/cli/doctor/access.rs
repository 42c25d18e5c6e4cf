//! Who may ask the worker, with which key the pool keeps things, and where people are sent.

use super::Finding;
use crate::{
    app,
    config::{BrokerPlan, Plan},
    model::Role,
};

/// Tokens, key and links, as far as the configuration tells.
pub(super) fn look(plan: &Plan) -> Vec<Finding> {
    vec![tokens(plan), key(plan)]
}

fn tokens(plan: &Plan) -> Finding {
    let part = "access";
    let tokens = &plan.access.tokens;
    let hint = "`interven-alerts token NAME --role ROLE` makes a token and the lines for the configuration";
    if tokens.is_empty() {
        return Finding::doubtful(part, "nobody has a token")
            .because("nobody can sign in to the console, use the API, or ask this worker with a command")
            .hint(hint);
    }
    let may_answer = tokens.iter().any(|token| matches!(token.role, Role::Analyst | Role::Admin));
    if !may_answer {
        return Finding::doubtful(part, format!("{}, but none of an analyst or admin", count(tokens.len())))
            .because("nobody can answer an approval in the console, replay, pause or resume")
            .hint(hint);
    }
    Finding::well(part, count(tokens.len()))
}

fn count(tokens: usize) -> String {
    if tokens == 1 { String::from("one token") } else { format!("{tokens} tokens") }
}

fn key(plan: &Plan) -> Finding {
    let part = "key";
    match (&plan.key, &plan.broker) {
        (Some(_), _) => Finding::well(part, "INTERVEN_ALERTS_KEY is set here"),
        (None, BrokerPlan::Embedded { .. }) => {
            let file = plan.data_dir.join(app::KEY_FILE);
            let says = if file.exists() { "is in" } else { "is not there yet; the worker makes it:" };
            Finding::well(part, format!("{says} {}", file.display()))
        }
        (None, BrokerPlan::RabbitMq { .. }) => Finding::doubtful(part, "INTERVEN_ALERTS_KEY is not set here")
            .because("without it no channel can be made in the console, and a sign-in holds on one worker only")
            .hint("set it for every worker to the same `openssl rand -base64 32`"),
    }
}
