//! What an error of the API client means for somebody who waits: is the server away, is it somebody else, what did it say.

use std::error::Error;

/// Whether a server showed a certificate that is not to be believed. Waiting does not help then.
pub fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    causes(error).into_iter().any(|cause| {
        matches!(cause.downcast_ref::<rustls::Error>(), Some(rustls::Error::InvalidCertificate(_)))
    })
}

/// The innermost cause, which says what the outer ones only wrap.
pub fn reason(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(|cause| cause.to_string()).unwrap_or_default()
}

/// The code that the server answered with; none if it did not answer.
pub fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// An error and its causes, outermost first. An I/O error hides the one it was made of from `source`.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut all = vec![error];
    loop {
        let last = all[all.len() - 1];
        let hidden = last.downcast_ref::<std::io::Error>().and_then(|it| it.get_ref());
        match hidden.map(|it| it as &(dyn Error + 'static)).or_else(|| last.source()) {
            Some(cause) => all.push(cause),
            None => return all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_certificate_of_a_stranger_is_found_at_the_bottom() {
        let stranger = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = Outer(std::io::Error::new(std::io::ErrorKind::InvalidData, stranger));
        assert!(is_untrusted(&error));
        assert!(reason(&error).contains("UnknownIssuer"), "{}", reason(&error));
        let away = Outer(std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused"));
        assert!(!is_untrusted(&away));
        assert_eq!(reason(&away), "refused");
    }
}
