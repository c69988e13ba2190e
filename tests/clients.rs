//! What the clients see that users really have: the text, the number, and what got stored.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "clients/credentials.rs"]
mod credentials;
#[cfg(test)]
#[path = "clients/embedded.rs"]
mod embedded;
#[cfg(test)]
#[path = "clients/history.rs"]
mod history;
#[cfg(test)]
#[path = "clients/mosquitto.rs"]
mod mosquitto;
#[cfg(test)]
#[path = "clients/mqttjs.rs"]
mod mqttjs;
#[cfg(test)]
#[path = "clients/ordinary.rs"]
mod ordinary;
#[cfg(test)]
#[path = "clients/paho.rs"]
mod paho;
#[cfg(test)]
#[path = "clients/rumqtt.rs"]
mod rumqtt;
#[cfg(test)]
#[path = "clients/scenarios.rs"]
mod scenarios;
#[cfg(test)]
#[path = "clients/scenarios_mosquitto.rs"]
mod scenarios_mosquitto;
#[cfg(test)]
#[path = "clients/scenarios_paho_c.rs"]
mod scenarios_paho_c;
#[cfg(test)]
#[path = "clients/scenarios_rumqttc.rs"]
mod scenarios_rumqttc;
#[cfg(test)]
#[path = "clients/site.rs"]
mod site;
