//! What a worker is shown so that it knows who asks.

use http::{
    HeaderName, HeaderValue,
    header::{AUTHORIZATION, COOKIE},
};

use crate::model::Secret;

/// A bearer token or the cookie of a session, as a header that does not print.
#[derive(Clone, Debug)]
pub struct Credential {
    name: HeaderName,
    value: HeaderValue,
}

impl Credential {
    /// A token. `None` of one that no header can hold.
    pub fn bearer(token: &Secret) -> Option<Self> {
        let text = Secret::new(format!("Bearer {}", token.expose()));
        Self::of(AUTHORIZATION, HeaderValue::from_str(text.expose()).ok()?)
    }

    /// The `Authorization` header that a caller sent itself.
    pub fn authorization(header: HeaderValue) -> Option<Self> {
        Self::of(AUTHORIZATION, header)
    }

    /// Cookies, as a `Cookie` header holds them.
    pub fn cookies(cookies: &Secret) -> Option<Self> {
        Self::of(COOKIE, HeaderValue::from_str(cookies.expose()).ok()?)
    }

    fn of(name: HeaderName, mut value: HeaderValue) -> Option<Self> {
        value.set_sensitive(true);
        (!value.is_empty()).then_some(Self { name, value })
    }

    pub(super) fn header(&self) -> (HeaderName, HeaderValue) {
        (self.name.clone(), self.value.clone())
    }
}
