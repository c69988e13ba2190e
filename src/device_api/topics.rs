//! The names of the virtual topics, and the filters a device may subscribe to.

use crate::mqtt::topic::Filter;
use crate::mqtt::wire::{QoS, ReasonCode};

/// Highest QoS granted on a device topic (TB-13).
pub const GRANTED_QOS_MAX: QoS = QoS::AtLeastOnce;

/// Where devices publish telemetry; the shorter names are for those that want short packets.
pub const TELEMETRY_TOPIC: &str = "v1/devices/me/telemetry";

/// A topic a device publishes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceTopic {
    /// `v1/devices/me/telemetry` and its short forms (TB-25).
    Telemetry,
    /// A `$` topic.
    System,
    /// Another name of the platform.
    Unknown,
    /// No name of the platform.
    Foreign,
}

/// Where the virtual topics are.
const PREFIXES: [&str; 4] = ["v1/devices/me/", "v1/gateway/", "v2/", "/provision/"];

/// True if the topic or filter stands under a prefix of the virtual topics: it is never routed.
#[must_use]
pub fn is_virtual(topic: &str) -> bool {
    PREFIXES.iter().any(|prefix| topic.starts_with(prefix))
}

impl DeviceTopic {
    /// The device topic with this name.
    #[must_use]
    pub fn of(topic: &str) -> Self {
        match topic {
            TELEMETRY_TOPIC | "v2/t" | "v2/t/j" => Self::Telemetry,
            _ if topic.starts_with('$') => Self::System,
            _ if is_platform(topic) => Self::Unknown,
            _ => Self::Foreign,
        }
    }
}

/// True if the topic is a name of the platform, where nothing ordinary is routed: a virtual topic,
/// or one of those under which it gives telemetry to applications.
#[must_use]
pub fn is_platform(topic: &str) -> bool {
    is_virtual(topic) || topic.starts_with("v1/devices/") || topic.starts_with('$')
}

/// The filters a device may subscribe to, compared as exact text (TB-11). Sorted.
pub const ALLOWED_FILTERS: [&str; 23] = [
    "v1/devices/me/attributes",
    "v1/devices/me/attributes/response/+",
    "v1/devices/me/rpc/request/+",
    "v1/devices/me/rpc/response/+",
    "v1/gateway/attributes",
    "v1/gateway/attributes/response",
    "v1/gateway/rpc",
    "v2/a",
    "v2/a/j",
    "v2/a/p",
    "v2/a/res/+",
    "v2/a/res/j/+",
    "v2/a/res/p/+",
    "v2/fw/error",
    "v2/fw/response/+/chunk/+",
    "v2/r/req/+",
    "v2/r/req/j/+",
    "v2/r/req/p/+",
    "v2/r/res/+",
    "v2/r/res/j/+",
    "v2/r/res/p/+",
    "v2/sw/error",
    "v2/sw/response/+/chunk/+",
];

/// The highest QoS a device is granted on `filter`.
///
/// # Errors
/// 0x8F: the filter is not on the allow-list, whatever it would match (TB-11).
pub fn grant(filter: &Filter<'_>) -> Result<QoS, ReasonCode> {
    if is_allowed(filter) {
        Ok(GRANTED_QOS_MAX)
    } else {
        Err(ReasonCode::TopicFilterInvalid)
    }
}

/// True if `filter` is on the allow-list.
#[must_use]
pub fn is_allowed(filter: &Filter<'_>) -> bool {
    ALLOWED_FILTERS.binary_search(&filter.as_str()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tb_11_the_allow_list_is_sorted_and_exact() {
        assert!(ALLOWED_FILTERS.is_sorted());
        for text in ALLOWED_FILTERS {
            let filter = Filter::new(text).unwrap();
            assert_eq!(grant(&filter), Ok(QoS::AtLeastOnce), "{text}");
        }
        for text in [
            "#",
            "+",
            "v1/#",
            "v1/devices/me/telemetry",
            "v2/fw/response/+",
        ] {
            let filter = Filter::new(text).unwrap();
            assert_eq!(
                grant(&filter),
                Err(ReasonCode::TopicFilterInvalid),
                "{text}"
            );
        }
        let shared = Filter::new("$share/g/v1/devices/me/attributes").unwrap();
        assert!(
            grant(&shared).is_err(),
            "a shared filter gives no more than the plain one"
        );
    }

    #[test]
    fn tb_25_short_forms_are_telemetry() {
        for topic in ["v1/devices/me/telemetry", "v2/t", "v2/t/j"] {
            assert_eq!(DeviceTopic::of(topic), DeviceTopic::Telemetry);
        }
        assert_eq!(DeviceTopic::of("$SYS/x"), DeviceTopic::System);
        assert_eq!(
            DeviceTopic::of("v1/devices/me/telemetry/"),
            DeviceTopic::Unknown
        );
        assert_eq!(DeviceTopic::of("v2"), DeviceTopic::Foreign);
        assert_eq!(DeviceTopic::of("a/v2/t"), DeviceTopic::Foreign);
    }
}
