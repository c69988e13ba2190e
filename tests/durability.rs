//! What the broker keeps of messages through stops, kills, damage and backups, on a real journal
//! and a real database, without a network.

#![cfg(test)]

#[path = "durability/backup.rs"]
mod backup;
#[path = "durability/damage.rs"]
mod damage;
#[path = "durability/place.rs"]
mod place;
#[path = "durability/restart.rs"]
mod restart;
