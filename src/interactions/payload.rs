//! What Slack posts when somebody clicks: a form with one field, `payload`, which is JSON.
//!
//! Only one thing in it is a click on one of our buttons: a `block_actions` with exactly one action whose `action_id` is `approve`
//! or `deny`. Link buttons, other apps' blocks, modals and whatever Slack invents next come to the same address, and are passed
//! over: nothing is ever taken for a deny because it is not an approve. Of the rest of the payload nothing is believed: what the
//! button stands for is in its sealed value, and the message is made anew from our own data.

use serde::Deserialize;

use crate::{
    approvals::{Answer, By},
    channels::slack::is_id,
    model::Secret,
};

/// The longest `response_url` that is kept, in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// A click on a button that may be one of ours.
#[derive(Clone, Debug)]
pub struct Press {
    /// What the button says.
    pub answer: Answer,
    /// The button's value, still sealed.
    pub value: String,
    /// Who clicked; the name is what they call themselves.
    pub by: By,
    /// The workspace that the message is in.
    pub team: Option<String>,
    /// Where Slack takes answers to the click. Not checked yet.
    pub response_url: Option<Secret>,
}

/// Why something is no click on a button of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// No form with one `payload`.
    #[error("it has no payload, or several")]
    NoPayload,
    /// Not of the shape of an interaction.
    #[error("its payload is no interaction that we can read")]
    Shape,
    /// Another type of interaction.
    #[error("it is another interaction than a click on a block")]
    Type,
    /// No action, or several.
    #[error("it holds no action, or several")]
    Actions,
    /// A link, or a button that is not ours.
    #[error("the button is none of ours")]
    Button,
}

#[derive(Deserialize)]
struct Interaction {
    #[serde(default)]
    user: Option<User>,
    #[serde(default)]
    team: Option<Team>,
    #[serde(default)]
    response_url: Option<String>,
    #[serde(default)]
    actions: Vec<Action>,
}

#[derive(Deserialize)]
struct User {
    id: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    team_id: Option<String>,
}

#[derive(Deserialize)]
struct Team {
    id: String,
}

#[derive(Deserialize)]
struct Action {
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default, rename = "action_id")]
    id: Option<String>,
    #[serde(default)]
    value: Option<String>,
}

/// Only what says whether it is for us at all, so that strangers of any shape are told apart from what is broken.
#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

/// Reads the body of a request.
pub fn read(body: &[u8]) -> Result<Press, Ignored> {
    let mut payloads = url::form_urlencoded::parse(body).filter(|(name, _)| name == "payload");
    let (Some((_, payload)), None) = (payloads.next(), payloads.next()) else { return Err(Ignored::NoPayload) };
    let kind: Kind = serde_json::from_str(&payload).map_err(|_| Ignored::Shape)?;
    if kind.r#type != "block_actions" {
        return Err(Ignored::Type);
    }
    let Interaction { user, team, response_url, actions } =
        serde_json::from_str(&payload).map_err(|_| Ignored::Shape)?;
    let [action] = <[Action; 1]>::try_from(actions).map_err(|_| Ignored::Actions)?;
    let answer = match (action.r#type.as_deref(), action.id.as_deref()) {
        (Some("button"), Some("approve")) => Answer::Approve,
        (Some("button"), Some("deny")) => Answer::Deny,
        _ => return Err(Ignored::Button),
    };
    let value = action.value.ok_or(Ignored::Button)?;
    let user = user.ok_or(Ignored::Shape)?;
    let (users_team, team) = (user.team_id, team.map(|team| team.id));
    let ids = [Some(&user.id), users_team.as_ref(), team.as_ref()];
    if !ids.into_iter().flatten().all(|id| is_id(id)) {
        return Err(Ignored::Shape);
    }
    let name = user.name.or(user.username).unwrap_or_default();
    let response_url = response_url.filter(|url| url.len() <= URL_BYTES_MAX).map(Secret::new);
    Ok(Press { answer, value, by: By { id: user.id, name, team: users_team }, team, response_url })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn form(payload: &Value) -> Vec<u8> {
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("payload", &payload.to_string())
            .finish()
            .into()
    }

    /// As platforms.md shows it.
    fn click() -> Value {
        json!({"type":"block_actions","api_app_id":"A1","token":"x","team":{"id":"T1","domain":"acme"},"enterprise":null,
            "is_enterprise_install":false,"user":{"id":"U1","username":"jane","name":"jane","team_id":"T1"},
            "channel":{"id":"C1","name":"sec"},
            "container":{"type":"message","message_ts":"1700000000.000100","channel_id":"C1","is_ephemeral":false},
            "message":{"type":"message","ts":"1700000000.000100","text":"..","blocks":[]},"trigger_id":"1.2.x",
            "response_url":"https://hooks.slack.com/actions/T1/2/abc","state":{"values":{}},
            "actions":[{"type":"button","action_id":"approve","block_id":"interven","value":"v1.a.b",
                "text":{"type":"plain_text","text":"Approve"},"style":"primary","action_ts":"1700000001.12"}]})
    }

    fn with(edit: impl FnOnce(&mut Value)) -> Result<Press, Ignored> {
        let mut payload = click();
        edit(&mut payload);
        read(&form(&payload))
    }

    #[test]
    fn a_click_on_a_button_is_read() {
        let press = with(|_| ()).unwrap();
        let jane = By { id: "U1".into(), name: "jane".into(), team: Some("T1".into()) };
        assert_eq!((press.answer, press.by, press.team.as_deref()), (Answer::Approve, jane, Some("T1")));
        assert_eq!(press.value, "v1.a.b");
        assert_eq!(press.response_url.unwrap().expose(), "https://hooks.slack.com/actions/T1/2/abc");
        assert_eq!(with(|one| one["actions"][0]["action_id"] = "deny".into()).unwrap().answer, Answer::Deny);
        // What an organisation's app leaves out.
        let bare = with(|one| {
            one["team"] = Value::Null;
            one["user"] = json!({"id": "W1"});
            one["response_url"] = Value::Null;
        });
        let bare = bare.unwrap();
        assert!(bare.team.is_none() && bare.by.team.is_none() && bare.response_url.is_none());
        let long = with(|one| one["response_url"] = "x".repeat(3_000).into()).unwrap();
        assert!(long.response_url.is_none());
    }

    #[test]
    fn everything_else_is_ignored_and_nothing_of_it_is_a_deny() {
        let action = |edit: fn(&mut Value)| with(|one| edit(&mut one["actions"][0])).unwrap_err();
        assert_eq!(action(|one| one["action_id"] = "view".into()), Ignored::Button);
        assert_eq!(action(|one| one["action_id"] = "Deny".into()), Ignored::Button);
        assert_eq!(action(|one| one["action_id"] = Value::Null), Ignored::Button);
        assert_eq!(action(|one| one["value"] = Value::Null), Ignored::Button);
        assert_eq!(action(|one| one["type"] = "static_select".into()), Ignored::Button);
        assert_eq!(action(|one| *one = 1.into()), Ignored::Shape);
        for kind in ["view_submission", "message_action", "shortcut", "block_suggestion", "", "Block_actions"] {
            assert_eq!(with(|one| one["type"] = kind.into()).unwrap_err(), Ignored::Type, "{kind}");
        }
        assert_eq!(with(|one| one["actions"] = json!([])).unwrap_err(), Ignored::Actions);
        assert_eq!(
            with(|one| {
                let again = one["actions"][0].clone();
                one["actions"].as_array_mut().unwrap().push(again);
            })
            .unwrap_err(),
            Ignored::Actions
        );
        assert_eq!(with(|one| one["actions"] = Value::Null).unwrap_err(), Ignored::Shape);
        assert_eq!(with(|one| one["user"] = Value::Null).unwrap_err(), Ignored::Shape);
        assert_eq!(with(|one| one["user"]["id"] = "<!here>".into()).unwrap_err(), Ignored::Shape);
        assert_eq!(with(|one| one["user"]["team_id"] = "t".into()).unwrap_err(), Ignored::Shape);
        assert_eq!(read(&form(&json!([]))).unwrap_err(), Ignored::Shape);
        assert_eq!(read(b"payload=").unwrap_err(), Ignored::Shape);
        for none in [&b""[..], b"ssl_check=1&token=x", b"{}", b"Payload=%7B%7D"] {
            assert_eq!(read(none).unwrap_err(), Ignored::NoPayload);
        }
        let twice = [form(&click()), form(&click())].join(&b'&');
        assert_eq!(read(&twice).unwrap_err(), Ignored::NoPayload);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(".{0,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_body_makes_reading_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(read(&body).is_err());
            let after = [b"payload=", &body[..]].concat();
            prop_assert!(read(&after).is_err());
        }

        #[test]
        fn no_payload_makes_reading_panic_or_is_more_than_it_says(
            key in prop_oneof![
                Just("type"), Just("user"), Just("team"), Just("actions"), Just("response_url"), Just("message"),
            ],
            value in any_json(),
            in_action in prop_oneof![Just("type"), Just("action_id"), Just("value"), Just("text")],
            of_action in any_json(),
        ) {
            let mut payload = click();
            payload["actions"][0][in_action] = of_action;
            payload[key] = value;
            if let Ok(press) = read(&form(&payload)) {
                let said = payload["actions"][0]["action_id"].as_str();
                prop_assert_eq!(said, Some(press.answer.as_str()));
            }
        }
    }
}
