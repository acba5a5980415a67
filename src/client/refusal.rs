//! What a status says beyond its code.

use std::error::Error;

use tonic::Code;
use tonic_types::StatusExt;

/// The `google.rpc.ErrorInfo` domain of the broker's own reasons.
pub const DOMAIN: &str = "mayfly";

/// The stable reason code of a refusal, such as `GRANT_EXPIRED`; `None` when the status is not the broker's own word.
#[must_use]
pub fn reason(status: &tonic::Status) -> Option<String> {
    let info = status.get_details_error_info()?;
    (info.domain == DOMAIN && !info.reason.is_empty()).then_some(info.reason)
}

/// One entry of a refusal's metadata, such as `why`; docs/errors.md lists them.
#[cfg(feature = "client")]
#[must_use]
pub fn detail(status: &tonic::Status, name: &str) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == DOMAIN)?.metadata.remove(name)
}

/// The status's own words; its code where it has none.
#[cfg(feature = "client")]
pub(super) fn said(status: &tonic::Status) -> &str {
    if status.message().is_empty() { status.code().description() } else { status.message() }
}

/// Whether the status was made on this side, because the broker could not be reached or the connection broke.
#[must_use]
pub fn unreachable(status: &tonic::Status) -> bool {
    reason(status).is_none()
        && (status.source().is_some()
            || matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic::Status;
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(reason: &str, domain: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, domain, HashMap::new());
        Status::with_error_details(Code::Unavailable, "no", details)
    }

    #[test]
    fn a_reason_counts_only_in_the_brokers_domain() {
        assert_eq!(reason(&status("GRANT_EXPIRED", DOMAIN)).as_deref(), Some("GRANT_EXPIRED"));
        assert_eq!(reason(&status("GRANT_EXPIRED", "other")), None);
        assert_eq!(reason(&status("", DOMAIN)), None);
        assert_eq!(reason(&Status::not_found("x")), None);
    }

    #[test]
    fn a_refusal_with_a_reason_is_not_a_broken_connection() {
        assert!(!unreachable(&status("CLOCK_UNCONFIRMED", DOMAIN)));
        assert!(unreachable(&Status::unavailable("x")));
        assert!(!unreachable(&Status::not_found("x")));
    }
}
