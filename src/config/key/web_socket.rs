//! The keys of `[ws]` and `[wss]`.

use super::{Key, Shape};

// Nothing listens that was not asked for: whoever needs no browsers opens no port for them.
pub(in crate::config) const WS_LISTEN: Key = Key::new("ws", "listen", r#""off""#, Shape::Listen);
pub(in crate::config) const WS_ORIGINS: Key = Key::new("ws", "origins", "[]", Shape::Origins);
pub(in crate::config) const WS_TOKEN_IN_QUERY: Key =
    Key::new("ws", "token_in_query", "false", Shape::Switch);
pub(in crate::config) const WS_PROXY_PROTOCOL_FROM: Key =
    Key::new("ws", "proxy_protocol_from", "[]", Shape::Networks);

pub(in crate::config) const WSS_LISTEN: Key = Key::new("wss", "listen", r#""off""#, Shape::Listen);
pub(in crate::config) const WSS_PROXY_PROTOCOL_FROM: Key =
    Key::new("wss", "proxy_protocol_from", "[]", Shape::Networks);
