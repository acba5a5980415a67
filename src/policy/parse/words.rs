//! Texts with rules of their own.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

use crate::{
    model::{CredentialKind, WorkloadName, id::InvalidId},
    policy::pattern::Pattern,
};

/// A text that breaks its rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(&'static str);

/// A word under the same rules as names: environments, labels, authorities, verifiers.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Label(pub(super) String);

impl FromStr for Label {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // All names share one rule; any of their types can check it.
        text.parse::<WorkloadName>().map(|name| Self(name.as_str().to_owned()))
    }
}

/// An https URL without query, fragment, user or final `/` (OpenID Connect Discovery 1.0 section 3); 1 to 255 bytes.
#[derive(Debug)]
pub(super) struct IssuerUrl(pub(super) String);

impl FromStr for IssuerUrl {
    type Err = Broken;

    fn from_str(text: &str) -> Result<Self, Broken> {
        let rest = text.strip_prefix("https://").ok_or(Broken("is no https URL"))?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/[]".contains(&b);
        if rest.is_empty() || rest.starts_with('/') || text.len() > 255 || !rest.bytes().all(plain) {
            return Err(Broken("is no https URL of 1 to 255 plain bytes without query, fragment or user"));
        }
        if rest.ends_with('/') {
            return Err(Broken("ends with `/`"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A SPIFFE ID with a path (SPIFFE-ID specification, section 2); at most 2,048 bytes.
#[derive(Debug)]
pub(super) struct SpiffeId(pub(super) String);

impl FromStr for SpiffeId {
    type Err = Broken;

    fn from_str(text: &str) -> Result<Self, Broken> {
        let rest = text.strip_prefix("spiffe://").ok_or(Broken("does not start with `spiffe://`"))?;
        let (domain, path) = rest.split_once('/').ok_or(Broken("has no path"))?;
        let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
        if domain.is_empty() || domain.len() > 255 || text.len() > 2048 || !domain.bytes().all(in_domain) {
            return Err(Broken("has no trust domain of 1 to 255 bytes of a-z, 0-9, `-`, `.` and `_`"));
        }
        let in_path = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let segment = |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(in_path);
        if !path.split('/').all(segment) {
            return Err(Broken("has a path segment that is empty, a dot, or not of letters, digits, `-`, `.` and `_`"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A DNS name in lower case, without a final dot or `*` (RFC 1123 section 2.1); 1 to 253 bytes.
#[derive(Debug)]
pub(super) struct DnsName(pub(super) String);

impl FromStr for DnsName {
    type Err = Broken;

    fn from_str(text: &str) -> Result<Self, Broken> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let label =
            |s: &str| (1..=63).contains(&s.len()) && s.bytes().all(letter) && !s.starts_with('-') && !s.ends_with('-');
        if text.len() > 253 || !text.split('.').all(label) {
            return Err(Broken("is no DNS name in lower case"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A [`Pattern`] that can be an action: at most 128 bytes.
#[derive(Debug)]
pub(super) struct Action(pub(super) Pattern);

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > 128 {
            return Err(format!("has {} bytes, where 1 to 128 are allowed", text.len()));
        }
        text.parse().map(Self).map_err(|why: crate::policy::pattern::InvalidPattern| why.to_string())
    }
}

/// A network as `10.0.0.0/8` or `2001:db8::/32`, or one address; nothing set behind the prefix.
#[derive(Debug)]
pub(super) struct Network(pub(super) IpNet);

impl FromStr for Network {
    type Err = Broken;

    fn from_str(text: &str) -> Result<Self, Broken> {
        let one = text.parse::<IpAddr>().ok().map(IpNet::from);
        let network = text.parse::<IpNet>().ok().or(one).ok_or(Broken("is no network such as `10.0.0.0/8`"))?;
        if network.prefix_len() == 0 {
            return Err(Broken("is every address; leave `sources` out for that"));
        }
        if network.trunc() != network {
            return Err(Broken("has bits behind its prefix"));
        }
        Ok(Self(network))
    }
}

/// A credential kind by its word.
#[derive(Debug)]
pub(super) struct Kind(pub(super) CredentialKind);

impl FromStr for Kind {
    type Err = Broken;

    fn from_str(text: &str) -> Result<Self, Broken> {
        CredentialKind::from_word(text).map(Self).ok_or(Broken("is none of `jwt`, `opaque`, `x509`, `secret`"))
    }
}

/// Words for people in a list: 1 to 128 characters, none of them a control character.
#[derive(Debug)]
pub(super) struct Words(pub(super) String);

impl FromStr for Words {
    type Err = Broken;

    fn from_str(text: &str) -> Result<Self, Broken> {
        let fits = (1..=128).contains(&text.chars().count()) && !text.trim().is_empty();
        if !fits || text.chars().any(char::is_control) {
            return Err(Broken("has not 1 to 128 characters without control characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<T: FromStr>(good: &[&str], bad: &[&str]) {
        good.iter().for_each(|text| assert!(text.parse::<T>().is_ok(), "{text}"));
        bad.iter().for_each(|text| assert!(text.parse::<T>().is_err(), "{text}"));
    }

    #[test]
    fn an_issuers_url_holds_at_its_limits_and_not_one_past() {
        let url = |bytes: usize| format!("https://{}", "x".repeat(bytes - 8));
        let good = ["https://x", "https://x.test/a_b~c", "https://[::1]:8443", &url(255)];
        let bad = [
            "https://",
            "https:///x",
            "http://x",
            "https://x/",
            "https://x?q",
            "https://x#f",
            "https://u@x",
            &url(256),
        ];
        check::<IssuerUrl>(&good, &bad);
    }

    #[test]
    fn a_spiffe_id_holds_at_its_limits_and_not_one_past() {
        let domain = |bytes: usize| format!("spiffe://{}/w", "x".repeat(bytes));
        let long = |bytes: usize| format!("spiffe://x/{}", "y".repeat(bytes - 11));
        let good = ["spiffe://x/w", "spiffe://a-b.c_d/0/W.x-y_z", &domain(255), &long(2048)];
        let bad = [
            "spiffe:///w",
            "spiffe://x",
            "spiffe://x/",
            "spiffe://x//w",
            "spiffe://x/./w",
            "spiffe://x/..",
            "spiffe://X/w",
            "spiffe://x/w w",
            "spiffe://x/w%20",
            "spiffe://x:1/w",
            "https://x/w",
            &domain(256),
            &long(2049),
        ];
        check::<SpiffeId>(&good, &bad);
    }

    #[test]
    fn a_dns_name_holds_at_its_limits_and_not_one_past() {
        let label = |bytes: usize| "x".repeat(bytes);
        let name = |last: usize| format!("{0}.{0}.{0}.{1}", label(63), label(last));
        let good = ["x", "a-b.0c.test", &label(63), &name(61)];
        let bad = ["", ".", "x.", "-x", "x-", "X", "a_b", "*.x", "a..b", &label(64), &name(62)];
        check::<DnsName>(&good, &bad);
    }

    #[test]
    fn actions_and_words_for_people_hold_at_their_limits_and_not_one_past() {
        let text = |characters: usize| "é".repeat(characters);
        check::<Action>(&["read", &"x".repeat(128)], &["", &"x".repeat(129)]);
        check::<Words>(&["a b", &text(1), &text(128)], &["", "  ", "a\nb", "\u{7f}", "a\u{85}", &text(129)]);
    }

    #[test]
    fn a_network_is_more_than_nothing_and_less_than_everything() {
        let good = ["10.0.0.0/8", "10.0.0.1", "2001:db8::/32", "::1", "0.0.0.0/1"];
        check::<Network>(&good, &["0.0.0.0/0", "::/0", "10.0.0.1/8", "2001:db8::1/32", "10.0.0.0/33", "x"]);
    }
}
