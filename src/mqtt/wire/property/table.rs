//! The table of properties (MQTT 5 section 2.2.2.2).

use super::Kind::{Binary, Byte, Four, Pair, Text, Two, Variable};
use super::Values::{Any, Bool, NotZero};
use super::{Kind, Place as P, Property as Id, Rule, Values};

/// One line for each property; the index is the identifier.
pub(super) static RULES: [Option<Rule>; 0x2B] = [
    None,
    row(
        Id::PayloadFormatIndicator,
        "Payload Format Indicator",
        Byte,
        Bool,
        MESSAGE,
    ),
    row(
        Id::MessageExpiryInterval,
        "Message Expiry Interval",
        Four,
        Any,
        MESSAGE,
    ),
    row(Id::ContentType, "Content Type", Text, Any, MESSAGE),
    None,
    None,
    None,
    None,
    row(Id::ResponseTopic, "Response Topic", Text, Any, MESSAGE),
    row(
        Id::CorrelationData,
        "Correlation Data",
        Binary,
        Any,
        MESSAGE,
    ),
    None,
    row(
        Id::SubscriptionIdentifier,
        "Subscription Identifier",
        Variable,
        NotZero,
        SUBSCRIPTION_ID,
    ),
    None,
    None,
    None,
    None,
    None,
    row(
        Id::SessionExpiryInterval,
        "Session Expiry Interval",
        Four,
        Any,
        EXPIRY,
    ),
    row(
        Id::AssignedClientIdentifier,
        "Assigned Client Identifier",
        Text,
        Any,
        P::CONNACK,
    ),
    row(
        Id::ServerKeepAlive,
        "Server Keep Alive",
        Two,
        Any,
        P::CONNACK,
    ),
    None,
    row(
        Id::AuthenticationMethod,
        "Authentication Method",
        Text,
        Any,
        AUTHENTICATION,
    ),
    row(
        Id::AuthenticationData,
        "Authentication Data",
        Binary,
        Any,
        AUTHENTICATION,
    ),
    row(
        Id::RequestProblemInformation,
        "Request Problem Information",
        Byte,
        Bool,
        P::CONNECT,
    ),
    row(
        Id::WillDelayInterval,
        "Will Delay Interval",
        Four,
        Any,
        P::WILL,
    ),
    row(
        Id::RequestResponseInformation,
        "Request Response Information",
        Byte,
        Bool,
        P::CONNECT,
    ),
    row(
        Id::ResponseInformation,
        "Response Information",
        Text,
        Any,
        P::CONNACK,
    ),
    None,
    row(
        Id::ServerReference,
        "Server Reference",
        Text,
        Any,
        TO_CLIENT,
    ),
    None,
    None,
    row(Id::ReasonString, "Reason String", Text, Any, REASON),
    None,
    row(
        Id::ReceiveMaximum,
        "Receive Maximum",
        Two,
        NotZero,
        CONNECTING,
    ),
    row(
        Id::TopicAliasMaximum,
        "Topic Alias Maximum",
        Two,
        Any,
        CONNECTING,
    ),
    row(Id::TopicAlias, "Topic Alias", Two, NotZero, P::PUBLISH),
    row(Id::MaximumQos, "Maximum QoS", Byte, Bool, P::CONNACK),
    row(
        Id::RetainAvailable,
        "Retain Available",
        Byte,
        Bool,
        P::CONNACK,
    ),
    row(Id::UserProperty, "User Property", Pair, Any, P::EVERYWHERE),
    row(
        Id::MaximumPacketSize,
        "Maximum Packet Size",
        Four,
        NotZero,
        CONNECTING,
    ),
    row(
        Id::WildcardSubscriptionAvailable,
        "Wildcard Subscription Available",
        Byte,
        Bool,
        P::CONNACK,
    ),
    row(
        Id::SubscriptionIdentifierAvailable,
        "Subscription Identifier Available",
        Byte,
        Bool,
        P::CONNACK,
    ),
    row(
        Id::SharedSubscriptionAvailable,
        "Shared Subscription Available",
        Byte,
        Bool,
        P::CONNACK,
    ),
];

const MESSAGE: P = P::PUBLISH.or(P::WILL);
const CONNECTING: P = P::CONNECT.or(P::CONNACK);
const AUTHENTICATION: P = CONNECTING.or(P::AUTH);
const EXPIRY: P = CONNECTING.or(P::DISCONNECT);
const REASON: P = P::CONNACK
    .or(P::ACK)
    .or(P::SUBACK)
    .or(P::DISCONNECT)
    .or(P::AUTH);
const TO_CLIENT: P = P::CONNACK.or(P::DISCONNECT);
const SUBSCRIPTION_ID: P = P::PUBLISH.or(P::SUBSCRIBE);

const fn row(
    property: Id,
    name: &'static str,
    kind: Kind,
    values: Values,
    places: P,
) -> Option<Rule> {
    Some(Rule {
        property,
        name,
        kind,
        values,
        places,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_stands_at_its_identifier() {
        let mut lines = 0;
        for (index, rule) in RULES.iter().enumerate() {
            let Some(rule) = rule else { continue };
            assert_eq!(rule.property as usize, index, "{}", rule.name);
            assert!(index < 64, "the walk keeps one bit for each");
            lines += 1;
        }
        assert_eq!(lines, 27, "MQTT 5 has 27 properties");
    }
}
