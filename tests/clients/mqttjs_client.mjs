// One errand with MQTT.js, printing what its events tell the user.
//
// Arguments: one JSON object with port, version ("3.1", "3.1.1" or "5") and messages (a list of
// [qos, payload]), and optionally token, client_id, ca_file, web and wait_for_close.

import { readFileSync } from 'node:fs'
import mqtt from 'mqtt'

const errand = JSON.parse(process.argv[2])
const versions = { '3.1': 3, '3.1.1': 4, 5: 5 }
const protocolVersion = versions[errand.version]

const client = mqtt.connect({
  protocol: (errand.web ? 'ws' : 'mqtt') + (errand.ca_file ? 's' : ''),
  path: '/mqtt', // of a WebSocket
  host: 'localhost',
  port: errand.port,
  protocolVersion,
  protocolId: protocolVersion === 3 ? 'MQIsdp' : 'MQTT',
  clientId: errand.client_id, // without one, MQTT.js makes one up
  username: errand.token,
  ca: errand.ca_file && readFileSync(errand.ca_file),
  reconnectPeriod: 0,
  connectTimeout: 20_000
})

client.on('connect', async (connack) => {
  console.log(`connect: ${connack.reasonCode ?? connack.returnCode}`)
  for (const [qos, payload] of errand.messages) {
    try {
      await client.publishAsync('v1/devices/me/telemetry', payload, { qos })
      console.log('publish: ok')
    } catch (error) {
      console.log(`publish: ${error.message} (${error.code})`)
    }
  }
  if (!errand.wait_for_close) client.end()
})
client.on('error', (error) => {
  console.log(`error: ${error.message} (${error.code})`)
  client.end(true)
})
client.on('disconnect', (packet) => console.log(`disconnect: ${packet.reasonCode}`))
client.on('close', () => {
  console.log('close')
  client.end(true)
})
