// The scenarios of `scenarios.rs` with MQTT.js: what its events say, one JSON line for each.
//
// Arguments: one JSON object with port, version ("3.1", "3.1.1" or "5"), token, prefix (of topics
// and client ids) and scenarios (names), and for TLS ca_file. Nothing is judged here.

import { readFileSync } from 'node:fs'
import mqtt from 'mqtt'

const errand = JSON.parse(process.argv[2])
const protocolVersion = { '3.1': 3, '3.1.1': 4, 5: 5 }[errand.version]
const isV5 = protocolVersion === 5
const LIMIT_MS = 60_000
const KEEP_S = 3600

/** What comes, in order; `next` waits for it. */
class Queue {
  items = []
  waiting = []

  put(item) {
    this.waiting.length ? this.waiting.shift()(item) : this.items.push(item)
  }

  next() {
    if (this.items.length) return Promise.resolve(this.items.shift())
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('nothing came in time')), LIMIT_MS)
      this.waiting.push((item) => (clearTimeout(timer), resolve(item)))
    })
  }

  async take(count) {
    const taken = []
    while (taken.length < count) taken.push(await this.next())
    return taken
  }
}

/** One connection. */
class Peer {
  messages = new Queue()

  static async connect(name, { clean = true, keep = false, will, hold = false, ...more } = {}) {
    const peer = new Peer()
    if (will) {
      const [topic, payload, willDelayInterval] = will
      will = { topic, payload, qos: 1 }
      if (willDelayInterval) will.properties = { willDelayInterval }
    }
    if (keep) more.sessionExpiryInterval = KEEP_S
    const client = mqtt.connect({
      protocol: errand.ca_file ? 'mqtts' : 'mqtt',
      host: 'localhost',
      port: errand.port,
      protocolVersion,
      protocolId: protocolVersion === 3 ? 'MQIsdp' : 'MQTT',
      clientId: `${errand.prefix}-${name}`,
      username: errand.token,
      ca: errand.ca_file && readFileSync(errand.ca_file),
      clean: isV5 ? clean : clean && !keep,
      properties: isV5 ? more : undefined,
      will,
      reconnectPeriod: 0,
      connectTimeout: LIMIT_MS
    })
    peer.client = client
    client.on('message', (_, __, packet) => peer.messages.put(packet))
    if (hold) client.handleMessage = () => {} // never done: no ack
    peer.connack = await new Promise((resolve, reject) => {
      client.once('connect', resolve)
      client.once('error', reject)
    })
    client.on('error', () => {}) // what fails says so itself
    peer.sessionPresent = peer.connack.sessionPresent
    return peer
  }

  subscribe(topic, qos = 1, options = {}) {
    return this.client.subscribeAsync(topic, { qos, ...options })
  }

  unsubscribe(topic) {
    return this.client.unsubscribeAsync(topic)
  }

  publish(topic, payload, qos = 1, retain = false, properties = undefined) {
    return this.client.publishAsync(topic, payload, { qos, retain, properties })
  }

  next() {
    return this.messages.next()
  }

  take(count) {
    return this.messages.take(count)
  }

  /** Leaves without a word. */
  drop() {
    this.client.stream.destroy()
  }

  close() {
    return this.client.endAsync()
  }
}

const connect = Peer.connect
const text = (packet) => packet.payload.toString()
const texts = (packets) => packets.map(text)
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b)
const numbers = (from, to) => Array.from({ length: to - from }, (_, n) => String(from + n))
const sorted = (list) => list.toSorted((a, b) => a - b)

async function closing(peers) {
  for (const peer of peers) await peer.close()
}

const scenarios = {
  async retained(topic) {
    const publisher = await connect('p')
    await publisher.publish(topic, 'kept', 1, true)
    const first = await connect('first')
    await first.subscribe(topic)
    const seen = await first.take(1)
    await publisher.publish(topic, 'live', 1, true)
    await publisher.publish(topic, '', 1, true)
    seen.push(...(await first.take(2)))
    const second = await connect('second')
    await second.subscribe(topic)
    await publisher.publish(topic, 'marker')
    const show = (packets) => packets.map((packet) => [text(packet), packet.retain])
    const shown = { first: show(seen), second: show(await second.take(1)) }
    await closing([publisher, first, second])
    return shown
  },

  async filters(topic) {
    const peer = await connect('p')
    await peer.subscribe(`${topic}/+/x`)
    await peer.subscribe(`${topic}/b/#`)
    for (const name of ['a/y', 'a/x', 'b', 'b/c/d']) await peer.publish(`${topic}/${name}`, name)
    await peer.unsubscribe(`${topic}/b/#`)
    for (const name of ['b/c', 'c/x']) await peer.publish(`${topic}/${name}`, name)
    const got = texts(await peer.take(4))
    await peer.close()
    return { got }
  },

  async will(topic) {
    const watcher = await connect('watcher')
    await watcher.subscribe(topic)
    ;(await connect('lost', { will: [topic, 'gone'] })).drop()
    const seen = await watcher.take(1)
    await (await connect('left', { will: [topic, 'not this'] })).close()
    await watcher.publish(topic, 'marker')
    seen.push(...(await watcher.take(1)))
    await watcher.close()
    return { got: texts(seen) }
  },

  async will_delay(topic) {
    const watcher = await connect('watcher')
    await watcher.subscribe(topic)
    ;(await connect('back', { keep: true, will: [topic, 'cancelled', 3600] })).drop()
    await (await connect('back', { clean: false })).close()
    ;(await connect('anew', { keep: true, will: [topic, 'ended', 3600] })).drop()
    await (await connect('anew')).close()
    const seen = await watcher.take(1)
    const before = performance.now()
    ;(await connect('late', { keep: true, will: [topic, 'waited', 1] })).drop()
    seen.push(...(await watcher.take(1)))
    const waited = performance.now() - before >= 1000
    await watcher.close()
    return { got: texts(seen), waited }
  },

  async shared(topic) {
    const [all, one, two] = [await connect('all'), await connect('one'), await connect('two')]
    await all.subscribe(topic)
    for (const member of [one, two]) await member.subscribe(`$share/group/${topic}`)
    for (const number of numbers(0, 20)) await all.publish(topic, number)
    const plain = texts(await all.take(20))
    const deadline = performance.now() + LIMIT_MS
    const lengths = () => [one.messages.items.length, two.messages.items.length]
    while (lengths()[0] + lengths()[1] < 20) {
      if (performance.now() > deadline) throw new Error(`still ${lengths()}`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    const parts = lengths()
    const halves = [...texts(await one.take(parts[0])), ...texts(await two.take(parts[1]))]
    one.drop()
    for (const number of numbers(20, 40)) await all.publish(topic, number)
    const rest = texts(await two.take(20))
    await closing([all, two])
    return {
      plain: same(plain, numbers(0, 20)),
      shared: same(sorted(halves), numbers(0, 20)),
      fair: Math.min(...parts) > 0,
      rest: same(sorted(rest), numbers(20, 40))
    }
  },

  async session(topic) {
    let away = await connect('away', { keep: true })
    const present = [away.sessionPresent]
    await away.subscribe(topic, 2)
    await away.close()
    const publisher = await connect('p')
    await publisher.publish(topic, 'one', 1)
    await publisher.publish(topic, 'two', 1)
    await publisher.publish(topic, 'three', 2)
    away = await connect('away', { clean: false, keep: true })
    present.push(away.sessionPresent)
    const got = (await away.take(3)).map((packet) => [text(packet), packet.qos])
    await away.close()
    away = await connect('away')
    present.push(away.sessionPresent)
    await publisher.publish(topic, 'for nobody')
    await away.subscribe(topic)
    await publisher.publish(topic, 'marker')
    const anew = texts(await away.take(1))
    await closing([away, publisher])
    return { present, got, anew }
  },

  async resend(topic) {
    let receiver = await connect('receiver', { keep: true, hold: true })
    await receiver.subscribe(topic)
    const publisher = await connect('p')
    await publisher.publish(topic, 'again')
    const seen = await receiver.take(1)
    receiver.drop()
    receiver = await connect('receiver', { clean: false, keep: true })
    seen.push(...(await receiver.take(1)))
    await publisher.publish(topic, 'next')
    seen.push(...(await receiver.take(1)))
    await closing([receiver, publisher])
    return { got: seen.map((packet) => [text(packet), packet.dup]) }
  },

  async qos2(topic) {
    const [subscriber, publisher] = [await connect('s'), await connect('p')]
    await subscriber.subscribe(topic, 2)
    await Promise.all(numbers(0, 50).map((number) => publisher.publish(topic, number, 2)))
    await publisher.publish(topic, 'end', 2)
    const seen = await subscriber.take(51)
    await closing([subscriber, publisher])
    return {
      'in order, once': same(texts(seen), [...numbers(0, 50), 'end']),
      qos: [...new Set(seen.map((packet) => packet.qos))]
    }
  },

  async alias_to(topic) {
    const [subscriber, publisher] = [await connect('s'), await connect('p')]
    await subscriber.subscribe(`${topic}/#`)
    const send = (name, payload, topicAlias) =>
      publisher.publish(name && `${topic}/${name}`, payload, 1, false, { topicAlias })
    await send('a', '1', 1)
    await send('b', '2', 2)
    await send('', '3', 1)
    await send('', '4', 2)
    await send('c', '5', 1)
    await send('', '6', 1)
    const got = (await subscriber.take(6)).map((packet) => [packet.topic.at(-1), text(packet)])
    await closing([subscriber, publisher])
    return { got }
  },

  async alias_from(topic) {
    const subscriber = await connect('s', { topicAliasMaximum: 2 })
    const publisher = await connect('p')
    const aliases = new Set()
    let used = false
    subscriber.client.on('packetreceive', (packet) => {
      if (packet.cmd !== 'publish') return
      used ||= packet.topic === ''
      if (packet.properties?.topicAlias) aliases.add(packet.properties.topicAlias)
    })
    const got = []
    subscriber.client.on('message', (name, payload) => got.push([name.at(-1), String(payload)]))
    await subscriber.subscribe(`${topic}/#`)
    for (const turn of ['1', '2']) {
      for (const name of ['a', 'b', 'c']) await publisher.publish(`${topic}/${name}`, turn)
    }
    await subscriber.take(6)
    await closing([subscriber, publisher])
    return { got, aliases: [...aliases].sort(), used }
  },

  async flow_out(topic) {
    const [subscriber, publisher] = [await connect('s'), await connect('p')]
    await subscriber.subscribe(topic, 2)
    await Promise.all(
      numbers(0, 300).map((number) => publisher.publish(topic, number, 1 + (number % 2)))
    )
    const seen = sorted(texts(await subscriber.take(300)))
    await closing([subscriber, publisher])
    return { all: same(seen, numbers(0, 300)) }
  },

  async request(topic) {
    const [server, asker] = [await connect('server'), await connect('asker')]
    await server.subscribe(`${topic}/ask`)
    await asker.subscribe(`${topic}/answer`)
    await asker.publish(`${topic}/ask`, 'ping', 1, false, {
      responseTopic: `${topic}/answer`,
      correlationData: Buffer.from('c-1'),
      userProperties: { a: ['1', '2'] },
      contentType: 'text/plain',
      payloadFormatIndicator: true,
      messageExpiryInterval: 100
    })
    const asked = (await server.next()).properties
    const { correlationData } = asked
    await server.publish(asked.responseTopic, 'pong', 1, false, { correlationData })
    const answer = await asker.next()
    await closing([server, asker])
    return {
      user: Object.entries(asked.userProperties).flatMap(([k, list]) => list.map((v) => [k, v])),
      type: asked.contentType,
      format: Number(asked.payloadFormatIndicator),
      expiry: asked.messageExpiryInterval > 0 && asked.messageExpiryInterval <= 100,
      answer: text(answer),
      correlation: answer.properties.correlationData.toString()
    }
  },

  async identifiers(topic) {
    const subscriber = await connect('s')
    const identified = (subscriptionIdentifier) => ({ properties: { subscriptionIdentifier } })
    await subscriber.subscribe(`${topic}/#`, 1, identified(1))
    await subscriber.subscribe(`${topic}/+`, 1, identified(268435455))
    await subscriber.publish(`${topic}/a`, 'both')
    await subscriber.publish(`${topic}/a/b`, 'one')
    const got = (await subscriber.take(2)).map((packet) => [
      text(packet),
      sorted([packet.properties.subscriptionIdentifier].flat())
    ])
    await subscriber.close()
    return { got }
  },

  async options(topic) {
    const [publisher, subscriber] = [await connect('p'), await connect('s')]
    await publisher.publish(topic, 'kept', 1, true)
    await subscriber.subscribe(topic, 1, { rh: 2, rap: true })
    await publisher.publish(topic, 'live', 1, true)
    await subscriber.subscribe(topic, 1, { rh: 1, rap: true, nl: true })
    await subscriber.publish(topic, 'own')
    await publisher.publish(topic, '', 1, true)
    const got = (await subscriber.take(2)).map((packet) => [text(packet), packet.retain])
    await closing([subscriber, publisher])
    return { got }
  }
}

for (const name of errand.scenarios) {
  const line = { scenario: name }
  try {
    line.seen = await scenarios[name](`${errand.prefix}/${name}`)
  } catch (error) {
    line.error = error.stack
  }
  console.log(JSON.stringify(line))
}
process.exit(0)
