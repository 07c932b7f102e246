// The list of what this browser uploaded, as the page shows it.
import { useState } from 'preact/hooks'

import { bytes, duration, moment, rate } from './format.js'
import { DONE, FAILED, GONE } from './uploads.js'

/**
 * fileOf: Uppy's file of an entry, if it is chosen. actions: {choose(entry, file), retry(entry), discard(entry), remove(entry)}; choose gives an objection
 * or null.
 */
export function List({ entries, isElsewhere, fileOf, links, open, actions }) {
  return (
    <>
      <div class="heading">
        <h2 id="uploads-title">Uploads from this browser</h2>
        <p>This list is kept in this browser only.{open && links && ' Whoever has a link can open the file, and delete it.'}</p>
      </div>
      {entries.length === 0 ? (
        <p class="empty">Nothing yet. What you upload appears here, with its link.</p>
      ) : (
        <ul>
          {entries.map((entry) => (
            <Row key={entry.key} entry={entry} status={statusOf(entry, isElsewhere, fileOf)} links={links} actions={actions} />
          ))}
        </ul>
      )}
    </>
  )
}

function statusOf(entry, isElsewhere, fileOf) {
  const { live, state } = entry
  if (live) return ['waiting', 'paused'].includes(live.phase) ? live.phase : 'sending'
  if (state === DONE || state === GONE) return state
  if (isElsewhere(entry)) return 'elsewhere'
  const file = fileOf(entry)
  if (file) return state === FAILED && file.error ? 'failed' : 'ready'
  return 'interrupted'
}

const ICONS = {
  sending: 'M12 19V6m-5.5 5.5L12 6l5.5 5.5',
  elsewhere: 'M12 19V6m-5.5 5.5L12 6l5.5 5.5',
  waiting: 'M12 7v5.5l3.5 2',
  paused: 'M9 8v8m6-8v8',
  interrupted: 'M9 8v8m6-8v8',
  ready: 'M10 8l6 4-6 4z',
  failed: 'M12 7v6m0 3.5v.01',
  gone: 'M8 8l8 8m0-8l-8 8',
  done: 'M7 12.5l3.5 3.5L17 8.5',
}

function Row({ entry, status, links, actions }) {
  const [objection, setObjection] = useState(null)
  const sent = entry.live?.sent ?? entry.sent
  const share = entry.size > 0 ? Math.min(1, sent / entry.size) : 1
  const choose = async ({ currentTarget: input }) => {
    const [file] = input.files
    input.value = '' // the same file may be chosen again
    if (file) setObjection(actions.choose(entry, file))
  }
  return (
    <li class={`row ${status}`} data-status={status}>
      <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
        <circle cx="12" cy="12" r="11" />
        <path d={ICONS[status]} />
      </svg>
      <div class="what">
        {status === DONE && links ? (
          <a class="name" href={entry.url} target="_blank" rel="noopener">
            {entry.name}
          </a>
        ) : (
          <span class="name">{entry.name}</span>
        )}
        <Words entry={entry} status={status} sent={sent} share={share} />
        {objection && (
          <p class="problem" role="alert">
            {objection}
          </p>
        )}
        {![DONE, GONE].includes(status) && (
          <progress max="1" value={share} aria-label={`${entry.name}: ${Math.floor(share * 100)} %`} />
        )}
      </div>
      <div class="actions">
        {status === 'interrupted' && (
          <label class="button main">
            Choose file
            <input type="file" aria-label={`Choose ${entry.name} again to go on`} onChange={choose} />
          </label>
        )}
        {status === 'failed' && (
          <button type="button" class="main" onClick={() => actions.retry(entry)}>
            Try again
          </button>
        )}
        {status === 'interrupted' && (
          <button type="button" aria-label={`Discard ${entry.name}`} title="Deletes what has arrived" onClick={() => actions.discard(entry)}>
            Discard
          </button>
        )}
        {status === DONE && <CopyLink entry={entry} />}
        {[DONE, GONE].includes(status) && (
          <button
            type="button"
            aria-label={`Remove ${entry.name} from the list`}
            title={status === DONE ? 'From this list only: the file stays on the server' : undefined}
            onClick={() => actions.remove(entry)}
          >
            Remove
          </button>
        )}
      </div>
    </li>
  )
}

function Words({ entry, status, sent, share }) {
  const { live, size, problem, note, resumedFrom } = entry
  const resumed = resumedFrom > 0 && <span class="resumed">resumed from {bytes(resumedFrom)}</span>
  const amount = `${bytes(sent)} of ${bytes(size)}`
  if (status === 'sending') {
    const speed = live.speed?.current
    const left = speed && size > sent && `${duration((size - sent) / speed)} left`
    const words = {
      queued: ['Starting', bytes(size)],
      storing: ['All bytes are on their way, the server has to confirm them'],
      sending: [`${Math.floor(share * 100)} %`, amount, speed && rate(speed), left],
    }[live.phase]
    return (
      <>
        <Line parts={[...words, resumed]} />
        {note && <p>{note}</p>}
      </>
    )
  }
  if (status === 'waiting')
    return (
      <>
        <Line parts={[`${amount} sent`, resumed]} />
        <p class="problem" role="status">
          {live.reason.what} {live.reason.todo}
        </p>
      </>
    )
  if (status === 'paused') return <Line parts={['Paused', `${amount} sent`, resumed]} />
  if (status === 'elsewhere') return <Line parts={['Another tab is sending it', amount]} />
  if (status === 'ready') return <Line parts={[sent > 0 ? `Press Upload: it goes on from ${bytes(sent)}` : 'Press Upload', `${bytes(size)} in all`]} />
  if (status === 'failed')
    return (
      <p class="problem" role="alert">
        {problem.what} {problem.todo}
      </p>
    )
  if (status === 'interrupted')
    return (
      <>
        <Line parts={['Interrupted', `${amount} stored`, entry.expiresAt && `kept until ${moment(entry.expiresAt)}`]} />
        {problem ? <p class="problem">{problem.what}</p> : <p>Choose the same file again, and it goes on from there.</p>}
      </>
    )
  if (status === GONE) return <Line parts={['No longer on the server', bytes(size), moment(entry.finishedAt ?? entry.startedAt)]} />
  return <Line parts={[bytes(size), moment(entry.finishedAt), entry.average && rate(entry.average), resumed]} />
}

function Line({ parts }) {
  const shown = parts.filter(Boolean)
  return <p class="line">{shown.map((part, index) => [index > 0 && <span class="dot"> · </span>, part])}</p>
}

function CopyLink({ entry }) {
  const [copied, setCopied] = useState(false)
  if (!navigator.clipboard) return null // not here: a page without TLS has none
  const copy = async () => {
    await navigator.clipboard.writeText(entry.url)
    setCopied(true)
    setTimeout(() => setCopied(false), 2000)
  }
  return (
    <button type="button" aria-label={`Copy the link of ${entry.name}`} onClick={() => copy().catch(() => {})}>
      {copied ? 'Copied' : 'Copy link'}
    </button>
  )
}
