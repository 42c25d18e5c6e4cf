//! TLS: the one place that says which cryptography the process uses.
//!
//! Several crates here speak TLS through rustls, and none of them brings a provider of its own, so that aws-lc and cmake stay
//! out of the build. Whoever opens an encrypted connection calls [`install`] first; the first call wins and the rest are free.

/// Makes ring the process's cryptography. Idempotent.
pub fn install() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing the race against another thread is as good as winning it: both install the same provider.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn installing_twice_is_the_same_as_once() {
        super::install();
        super::install();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}
