//! What clicks on the buttons of a channel are held against: who signs them, who may answer, where they may be answered to.

use url::{Host, Url};

use crate::model::Secret;

/// The longest id of Slack that is read, in characters. They have 9 to 11 today.
const ID_CHARS_MAX: usize = 64;

/// What clicks on the buttons of a channel are held against.
#[derive(Clone, Debug)]
pub struct Interactivity {
    /// The app's signing secrets; the first seals new buttons, all open old ones. None: no live buttons.
    pub signing_secrets: Vec<Secret>,
    /// Who may answer; `None`: everyone in the channel.
    pub approvers: Option<Vec<Approver>>,
    /// The hosts that answers to clicks may be posted to.
    pub response_hosts: Vec<String>,
}

impl Default for Interactivity {
    fn default() -> Self {
        let response_hosts = vec![String::from("hooks.slack.com")];
        Self { signing_secrets: Vec::new(), approvers: None, response_hosts }
    }
}

/// Somebody who may answer, as the configuration names them: `U024BE7LH`, a member of the workspace that the card is in, or
/// `T012AB3C4/U024BE7LH`, a member of another one (Slack Connect, Enterprise Grid). Only ids: names can be changed by whoever has
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approver {
    team: Option<String>,
    user: String,
}

/// It is not the id of anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a member's id")]
pub struct ApproverError(String);

impl std::str::FromStr for Approver {
    type Err = ApproverError;

    fn from_str(text: &str) -> Result<Self, ApproverError> {
        let (team, user) = text.split_once('/').map_or((None, text), |(team, user)| (Some(team), user));
        let begins = |id: &str, with: [char; 2]| is_id(id) && id.starts_with(with);
        if !begins(user, ['U', 'W']) || team.is_some_and(|team| !begins(team, ['T', 'E'])) {
            return Err(ApproverError(text.to_owned()));
        }
        Ok(Self { team: team.map(str::to_owned), user: user.to_owned() })
    }
}

/// Whether `text` has the form of Slack's ids.
pub fn is_id(text: &str) -> bool {
    (2..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

impl Interactivity {
    /// Whether `user` of the workspace `users_team` may answer a card in the workspace `team`.
    pub fn may_answer(&self, user: &str, users_team: Option<&str>, team: Option<&str>) -> bool {
        let Some(approvers) = &self.approvers else { return true };
        approvers.iter().any(|one| {
            // An id without a team is somebody at home. Where Slack does not say what home is, nobody is.
            let wanted = one.team.as_deref().or(team);
            one.user == user && wanted.is_some() && wanted == users_team
        })
    }

    /// Where an answer to a click may be posted, if it may be posted to `url`: over https, to one of the hosts and no other port
    /// than https has. On this machine, where an operator has listed it, also without encryption and to any port: that is a
    /// relay, or a test.
    pub fn may_reply_to(&self, url: &str) -> Option<Url> {
        let url = Url::parse(url).ok()?;
        let is_local = match url.host()? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(ip) => ip.is_loopback(),
            Host::Ipv6(ip) => ip.is_loopback(),
        };
        let is_https = url.scheme() == "https" && url.port().is_none();
        let is_bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        let host = url.host_str()?;
        let is_listed = self.response_hosts.iter().any(|one| one.eq_ignore_ascii_case(host));
        let is_http = ["http", "https"].contains(&url.scheme());
        (is_listed && is_bare && (is_https || is_local && is_http)).then_some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approvers(list: &[&str]) -> Interactivity {
        let approvers = Some(list.iter().map(|one| one.parse().unwrap()).collect());
        Interactivity { approvers, ..Interactivity::default() }
    }

    #[test]
    fn a_member_answers_at_home_and_one_of_another_workspace_only_where_named_with_it() {
        let home = approvers(&["U1A", "W2B"]);
        assert!(home.may_answer("U1A", Some("T1"), Some("T1")) && home.may_answer("W2B", Some("T1"), Some("T1")));
        for (user, users_team, team) in [
            ("U3C", Some("T1"), Some("T1")),
            ("U1A", Some("T2"), Some("T1")),
            ("U1A", None, Some("T1")),
            ("U1A", Some("T1"), None),
            ("U1A", None, None),
            ("u1a", Some("T1"), Some("T1")),
        ] {
            assert!(!home.may_answer(user, users_team, team), "{user} {users_team:?} {team:?}");
        }
        let guest = approvers(&["T2/U1A"]);
        assert!(guest.may_answer("U1A", Some("T2"), Some("T1")) && guest.may_answer("U1A", Some("T2"), None));
        assert!(!guest.may_answer("U1A", Some("T1"), Some("T1")));
        assert!(!approvers(&[]).may_answer("U1A", Some("T1"), Some("T1")));
        assert!(Interactivity::default().may_answer("U1A", None, None));
    }

    #[test]
    fn an_approver_is_an_id_and_never_a_name() {
        for good in ["U024BE7LH", "W024BE7LH", "T1/U1", "E1/W1"] {
            assert!(good.parse::<Approver>().is_ok(), "{good}");
        }
        for bad in ["", "U", "@jane", "jane", "u024be7lh", "C024BE7LH", "U1/T1", "T1/", "/U1", "T1/U1/U2", "U1 "] {
            assert!(bad.parse::<Approver>().is_err(), "{bad}");
        }
        assert!(format!("U{}", "1".repeat(64)).parse::<Approver>().is_err());
    }

    #[test]
    fn answers_go_to_slack_and_nowhere_else() {
        let slack = Interactivity::default();
        assert!(slack.may_reply_to("https://hooks.slack.com/actions/T1/2/abc").is_some());
        assert!(slack.may_reply_to("https://HOOKS.slack.com:443/actions/T1/2/abc").is_some());
        for bad in [
            "",
            "hooks.slack.com",
            "http://hooks.slack.com/actions/T1/2/abc",
            "https://hooks.slack.com:8443/actions",
            "https://hooks.slack.com.evil.example/actions",
            "https://evil.example/hooks.slack.com",
            "https://hooks.slack.com@evil.example/",
            "https://user@hooks.slack.com/",
            "https://:pw@hooks.slack.com/",
            "https://hooks.slack.com/#x",
            "https://slack.com/actions",
            "https://127.0.0.1/actions",
            "http://localhost/actions",
            "ftp://hooks.slack.com/",
            "file:///etc/passwd",
        ] {
            assert_eq!(slack.may_reply_to(bad), None, "{bad}");
        }
        let hosts = ["127.0.0.1", "localhost", "[::1]", "hooks.slack-gov.com", "10.0.0.1"].map(String::from).to_vec();
        let local = Interactivity { response_hosts: hosts, ..Interactivity::default() };
        for good in
            ["http://127.0.0.1:9/a", "http://localhost:80/a", "https://[::1]:1/a", "https://hooks.slack-gov.com/a"]
        {
            assert!(local.may_reply_to(good).is_some(), "{good}");
        }
        for bad in ["http://10.0.0.1/a", "https://10.0.0.1:1/a", "http://127.0.0.2/a", "http://hooks.slack-gov.com/a"] {
            assert_eq!(local.may_reply_to(bad), None, "{bad}");
        }
    }
}
