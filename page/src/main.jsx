// The page: what the server says of itself, Uppy above, the list below.
import '@uppy/core/css/style.min.css'
import '@uppy/dashboard/css/style.min.css'
import './page.css'
import { render } from 'preact'

import { bytes } from './format.js'
import { List } from './list.jsx'
import { checkFinished, checkInterrupted, discard } from './server.js'
import { Uploads } from './uploads.js'
import { makeUploader } from './uploader.js'

const CHECK_MS = 5000
const TITLE = document.title

const { endpoint: path, maxSize, downloads, open } = document.body.dataset
const endpoint = new URL(path, location.href).href
const links = downloads === 'yes'

let drawing = null
const changed = () => {
  drawing ??= setTimeout(draw, 50) // not by animation frames: tabs in the background get none
}
const uploads = new Uploads(endpoint, changed)
const uppy = makeUploader({
  target: '#dashboard',
  endpoint,
  maxSize: maxSize ? Number(maxSize) : null,
  links,
  uploads,
  changed,
})

const actions = {
  choose(entry, file) {
    if (file.name !== entry.name || file.size !== entry.size)
      return `That is another file. To go on, choose ${entry.name} with ${bytes(entry.size)}.`
    const meta = { relativePath: entry.relativePath }
    let fileId = entry.fileId
    if (!uppy.getFile(fileId)) fileId = uppy.addFile({ source: 'list', name: file.name, type: file.type, data: file, meta })
    if (fileId !== entry.fileId) return 'The file was changed after its upload began, so it becomes a new upload: press Upload.'
    uppy.upload().catch(() => {}) // the row says it
    return null
  },
  retry: (entry) => void uppy.retryUpload(entry.fileId).catch(() => {}),
  discard: (entry) => void discard(uploads, entry),
  remove: (entry) => uploads.remove(entry.key),
}

function draw() {
  drawing = null
  const entries = uploads.all()
  render(
    <List
      entries={entries}
      isElsewhere={(entry) => uploads.isElsewhere(entry)}
      fileOf={(entry) => uppy.getFile(entry.fileId)}
      links={links}
      open={open === 'yes'}
      actions={actions}
    />,
    document.querySelector('#uploads'),
  )
  const running = entries.filter((entry) => entry.live)
  const total = running.reduce((sum, { size }) => sum + size, 0)
  const sent = running.reduce((sum, { live }) => sum + live.sent, 0)
  document.title = total > 0 ? `${Math.floor((100 * sent) / total)} % · ${TITLE}` : TITLE
}

document.querySelector('#endpoint').append('Any program that speaks tus 1.0.0 can upload too, to ', code(endpoint), '.')
draw()
checkFinished(uploads)
const check = () => checkInterrupted(uploads, (entry) => Boolean(uppy.getFile(entry.fileId)))
check()
setInterval(check, CHECK_MS)

function code(text) {
  const element = document.createElement('code')
  element.textContent = text
  return element
}
