//! Secrets: a text that cannot print itself, and a scrubber that keeps secrets out of texts that others wrote.
//!
//! Two defences, because one is not enough: a [`Secret`] has no way to print what it holds, and a [`Scrubber`] removes every
//! known secret from text that comes from outside (an endpoint may echo a token back at us) before it reaches a log line, an
//! error or a dead letter.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use zeroize::Zeroizing;

/// A text that must not be seen. It prints as `[secret]`, is not serialisable, and is wiped when the last owner lets go.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The text itself: for the socket and for signatures, never for a log, an error or a page.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What may be shown of a secret URL: scheme, host and port, then the last four characters of what is hidden
    /// (`https://hooks.slack.com/...abcd`); of anything else, or where less than twelve characters are hidden, nothing.
    pub fn masked_url(&self) -> String {
        let text = self.expose();
        let Ok(url) = url::Url::parse(text) else { return String::from("[secret]") };
        let Some(host) = url.host_str() else { return String::from("[secret]") };
        let port = url.port().map_or(String::new(), |port| format!(":{port}"));
        let hidden: Vec<char> = text.chars().skip(url.scheme().len() + 3 + host.len() + port.len() + 1).collect();
        let tail: String = if hidden.len() >= 12 { hidden[hidden.len() - 4..].iter().collect() } else { String::new() };
        format!("{}://{host}{port}/...{tail}", url.scheme())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

/// Removes known secrets from text. Cheap to clone; what one clone learns, all know.
#[derive(Clone, Default)]
pub struct Scrubber {
    /// Longest first, so that a secret that contains another one goes as a whole.
    secrets: Arc<RwLock<Arc<Vec<Secret>>>>,
}

impl Scrubber {
    /// Shorter texts are not searched for: removing every `a` from a reply would hide nothing and garble everything.
    pub const CHARS_MIN: usize = 6;

    /// Words of a secret that are this long are secrets by themselves: the last segment of a webhook's path, the half of a bot
    /// token behind the colon. An endpoint may quote just that.
    pub const PART_CHARS_MIN: usize = 16;

    /// A scrubber that knows `secrets`. Of a URL it also removes the path with its query alone: errors and replies quote it so.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        let scrubber = Self::default();
        scrubber.learn(secrets);
        scrubber
    }

    /// Learns more secrets, and forgets none: an endpoint may quote yesterday's token today.
    pub fn learn(&self, secrets: impl IntoIterator<Item = Secret>) {
        let mut known = self.known().to_vec();
        for secret in secrets {
            if let Ok(url) = url::Url::parse(secret.expose())
                && url.has_host()
            {
                known.push(Secret::new(&url[url::Position::BeforePath..url::Position::AfterQuery]));
                known.extend(url.password().map(Secret::new));
                // The parser may write the URL otherwise than the operator did.
                known.push(Secret::new(url.as_str()));
                // The host is no secret, so the words are taken from behind it.
                known.extend(words(&url[url::Position::BeforePath..]));
                known.extend(url.query_pairs().flat_map(|(_, value)| words(&value).collect::<Vec<_>>()));
            } else {
                known.extend(words(secret.expose()));
            }
            known.push(secret);
        }
        known.retain(|secret| secret.expose().chars().count() >= Self::CHARS_MIN);
        known.sort_by(|a, b| b.expose().len().cmp(&a.expose().len()).then_with(|| a.expose().cmp(b.expose())));
        known.dedup();
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    fn known(&self) -> Arc<Vec<Secret>> {
        Arc::clone(&self.secrets.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// So much of a secret at the end of a text is a secret that was cut off; less may be a prefix that everybody knows (`whsec_`).
    const CUT_CHARS_MIN: usize = 8;

    /// `text` with every known secret replaced by `[secret]`; one that the end of the text cuts off, too, because quotations are cut
    /// before they come here.
    pub fn scrub(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        let secrets = self.known();
        for secret in secrets.iter() {
            if clean.contains(secret.expose()) {
                clean = clean.replace(secret.expose(), "[secret]");
            }
        }
        if let Some(cut) = secrets.iter().filter_map(|secret| cut_off(&clean, secret.expose())).min() {
            clean.truncate(cut);
            clean.push_str("[secret]");
        }
        clean
    }
}

/// The long words of a secret, and the long parts of those that have a prefix (`whsec_`, `xoxb-`).
fn words(text: &str) -> impl Iterator<Item = Secret> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
    let parts = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.chain(parts).filter(|part| part.len() >= Scrubber::PART_CHARS_MIN).map(Secret::new)
}

/// Where at the end of `text` a `secret` begins that the end cuts off.
fn cut_off(text: &str, secret: &str) -> Option<usize> {
    let longest = secret.len().saturating_sub(1).min(text.len());
    let begins = (Scrubber::CUT_CHARS_MIN..=longest).rev().map(|bytes| text.len() - bytes);
    begins.filter(|at| text.is_char_boundary(*at)).find(|at| secret.starts_with(&text[*at..]))
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scrubber({} secrets)", self.known().len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Scrubber, Secret};

    #[test]
    fn a_secret_prints_nothing_of_itself() {
        let secret = Secret::new("xoxb-123456-abcdef");
        assert_eq!(format!("{secret:?} {secret:#?}"), "[secret] [secret]");
    }

    #[test]
    fn a_masked_url_shows_its_host_and_four_last_characters() {
        let secret = Secret::new("https://hooks.slack.com/services/T0/B0/abcdefghijkl");
        assert_eq!(secret.masked_url(), "https://hooks.slack.com/...ijkl");
        assert_eq!(Secret::new("https://x.example:8088/short").masked_url(), "https://x.example:8088/...");
        assert_eq!(Secret::new("not a url").masked_url(), "[secret]");
    }

    #[test]
    fn known_secrets_are_removed_from_text_of_others() {
        let scrubber = Scrubber::new([
            Secret::new("https://api.telegram.org/bot12345:TOKEN/sendMessage"),
            Secret::new("12345:TOKEN"),
            Secret::new("abc"),
        ]);
        let clean = scrubber.scrub("POST /bot12345:TOKEN/sendMessage failed, token 12345:TOKEN, abc");
        assert_eq!(clean, "POST [secret] failed, token [secret], abc");
    }

    #[test]
    fn what_one_scrubber_learns_its_clones_know_too_and_none_forgets() {
        let scrubber = Scrubber::new([Secret::new("old-token")]);
        let clone = scrubber.clone();
        scrubber.learn([Secret::new("new-token")]);
        assert_eq!(clone.scrub("old-token and new-token"), "[secret] and [secret]");
    }

    #[test]
    fn parts_of_secrets_and_secrets_that_are_cut_off_are_removed_too() {
        let scrubber = Scrubber::new([
            Secret::new("https://hooks.example/services/T0/kQ7vXw2mZr9LpT4nHd6s?sig=mN4bVcX9zLkJ7hGfDsA1"),
            Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILP"),
        ]);
        for (text, clean) in [
            ("bad token kQ7vXw2mZr9LpT4nHd6s!", "bad token [secret]!"),
            ("http:\\/\\/x\\/kQ7vXw2mZr9LpT4nHd6s\\/", "http:\\/\\/x\\/[secret]\\/"),
            ("sig mN4bVcX9zLkJ7hGfDsA1 is wrong", "sig [secret] is wrong"),
            ("not MfKQ9r8GKYqrTwjUPD8ILP", "not [secret]"),
            ("a long story that ends in kQ7vXw2mZr9LpT4", "a long story that ends in [secret]"),
            ("kQ7vX is too short to tell, é", "kQ7vX is too short to tell, é"),
            ("services are fine", "services are fine"),
        ] {
            assert_eq!(scrubber.scrub(text), clean);
        }
    }

    #[test]
    fn a_part_that_is_a_secret_by_itself_is_removed_too_and_the_host_is_not() {
        let scrubber = Scrubber::new([
            Secret::new("https://a-long-and-public-host.example/services/T0/B0/abcdefghijklmnop1234"),
            Secret::new("12345:AAtheHalfBehindTheColon"),
        ]);
        let clean = scrubber
            .scrub("a-long-and-public-host.example/services says abcdefghijklmnop1234 or AAtheHalfBehindTheColon");
        assert_eq!(clean, "a-long-and-public-host.example/services says [secret] or [secret]");
    }
}
