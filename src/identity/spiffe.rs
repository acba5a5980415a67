//! SPIFFE IDs, as certificates and tokens name workloads.

/// Why a text is no SPIFFE ID of a workload.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// Longer than 2,048 bytes.
    #[error("is longer than 2,048 bytes")]
    Length,
    /// Does not begin with `spiffe://`.
    #[error("does not begin with spiffe://")]
    Scheme,
    /// The trust domain is not 1 to 255 bytes of `[a-z0-9.-_]`.
    #[error("has a trust domain that is not 1 to 255 bytes of a-z, 0-9, `.`, `-` and `_`")]
    TrustDomain,
    /// The path is missing, or a segment is empty, `.`, `..` or holds another byte than `[a-zA-Z0-9.-_]`.
    #[error("has a path that is missing or holds an empty, relative or malformed segment")]
    Path,
}

/// Checks the SPIFFE ID of a workload and gives its trust domain.
///
/// # Errors
/// When it is not one. A trust domain's own ID, without a path, names no workload.
///
/// Source: SPIFFE-ID.md sections 2 and 3.
pub fn trust_domain(id: &str) -> Result<&str, InvalidSpiffeId> {
    if id.len() > ID_MAX_BYTES {
        return Err(InvalidSpiffeId::Length);
    }
    let rest = id.strip_prefix("spiffe://").ok_or(InvalidSpiffeId::Scheme)?;
    let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
    let in_domain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if domain.is_empty() || domain.len() > DOMAIN_MAX_BYTES || !domain.bytes().all(in_domain) {
        return Err(InvalidSpiffeId::TrustDomain);
    }
    let in_segment = |b: u8| in_domain(b) || b.is_ascii_uppercase();
    let segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(in_segment);
    match path {
        Some(path) if path.split('/').all(segment) => Ok(domain),
        Some(_) | None => Err(InvalidSpiffeId::Path),
    }
}

const ID_MAX_BYTES: usize = 2_048;
const DOMAIN_MAX_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_has_a_domain_and_a_path_of_plain_segments() {
        assert_eq!(trust_domain("spiffe://acme.mayfly.internal/workload/Build_1.x"), Ok("acme.mayfly.internal"));
        let domain = InvalidSpiffeId::TrustDomain;
        for (bad, why) in [
            ("https://td/x", InvalidSpiffeId::Scheme),
            ("SPIFFE://td/x", InvalidSpiffeId::Scheme),
            ("spiffe:///x", domain),
            ("spiffe://Td/x", domain),
            ("spiffe://td:1/x", domain),
            ("spiffe://u@td/x", domain),
            ("spiffe://td", InvalidSpiffeId::Path),
            ("spiffe://td/", InvalidSpiffeId::Path),
            ("spiffe://td/x/", InvalidSpiffeId::Path),
            ("spiffe://td//x", InvalidSpiffeId::Path),
            ("spiffe://td/../x", InvalidSpiffeId::Path),
            ("spiffe://td/./x", InvalidSpiffeId::Path),
            ("spiffe://td/a%2fb", InvalidSpiffeId::Path),
            ("spiffe://td/x?y", InvalidSpiffeId::Path),
        ] {
            assert_eq!(trust_domain(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn a_spiffe_id_holds_at_its_limits_and_not_one_past() {
        let long = |n: usize| format!("spiffe://td/{}", "x".repeat(n - 12));
        assert!(trust_domain(&long(2_048)).is_ok());
        assert_eq!(trust_domain(&long(2_049)), Err(InvalidSpiffeId::Length));
        assert!(trust_domain(&format!("spiffe://{}/x", "d".repeat(255))).is_ok());
        assert!(trust_domain(&format!("spiffe://{}/x", "d".repeat(256))).is_err());
    }
}
