//! Whether another site's page made a browser send a request.
//!
//! Browsers say so themselves: `Sec-Fetch-Site` in all that are in use today, and `Origin` in older ones. What sends neither is no
//! browser, or none that a page could use against us. This is the check of Go's `http.CrossOriginProtection`, with our public
//! address in the place of its trusted origins; it needs no token in forms and no state.
//!
//! It stands behind `SameSite=Strict`, which alone would let pages of neighbours under the same domain through.

use axum::http::{HeaderMap, StatusCode, header::HOST};

use super::{errors::ApiError, terms::Terms};

/// Refuses a request that another site's page sent.
pub(super) fn refuse(headers: &HeaderMap, terms: &Terms) -> Result<(), ApiError> {
    if is_own(headers, terms) {
        return Ok(());
    }
    Err(ApiError {
        status: StatusCode::FORBIDDEN,
        code: "cross_origin",
        message: String::from("another site's page sent this request"),
        hint: "send it from the console itself, or with a bearer token; behind a proxy, `http.public_url` must be the console's address",
    })
}

fn is_own(headers: &HeaderMap, terms: &Terms) -> bool {
    // Twice the same header is nothing that a browser does, and nothing is believed then.
    let only = |name| {
        let mut values = headers.get_all(name).iter();
        let first = values.next().map(|value| value.to_str().unwrap_or("unreadable"));
        if values.next().is_some() { Some("repeated") } else { first }
    };
    if let Some(site) = only("sec-fetch-site") {
        // `none`: the person did it, from the address bar or a bookmark.
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = only("origin") else { return true };
    let here = headers.get(HOST).and_then(|host| host.to_str().ok());
    let same =
        origin.split_once("://").is_some_and(|(_, host)| here.is_some_and(|here| here.eq_ignore_ascii_case(host)));
    same || terms.is_own_origin(origin)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_of_another_sites_page_is_refused_and_every_other_is_not() {
        let terms = Terms::new("https://alerts.example.com", Duration::ZERO, Vec::new());
        for (site, origin, own) in [
            (None, None, true),
            (Some("same-origin"), None, true),
            (Some("none"), None, true),
            (Some("same-origin"), Some("https://evil.example"), true),
            (Some("same-site"), None, false),
            (Some("cross-site"), None, false),
            (Some("cross-site"), Some("https://alerts.example.com"), false),
            (Some(""), None, false),
            (None, Some("http://inside:8080"), true),
            (None, Some("https://INSIDE:8080"), true),
            (None, Some("https://alerts.example.com"), true),
            (None, Some("http://alerts.example.com"), false),
            (None, Some("https://alerts.example.com:444"), false),
            (None, Some("https://inside"), false),
            (None, Some("https://evil.example"), false),
            (None, Some("inside:8080"), false),
            (None, Some("null"), false),
            (None, Some(""), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "inside:8080".parse().unwrap());
            for (name, value) in [("sec-fetch-site", site), ("origin", origin)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            assert_eq!(is_own(&headers, &terms), own, "{site:?} {origin:?}");
            assert_eq!(refuse(&headers, &terms).is_ok(), own);
        }
        let mut twice = HeaderMap::new();
        twice.append("sec-fetch-site", "same-origin".parse().unwrap());
        twice.append("sec-fetch-site", "same-origin".parse().unwrap());
        assert!(!is_own(&twice, &terms));
        let mut nameless = HeaderMap::new();
        nameless.insert("origin", "http://inside:8080".parse().unwrap());
        assert!(!is_own(&nameless, &terms), "without `Host` there is nothing to be the same as");
    }
}
