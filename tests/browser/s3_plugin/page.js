// What ?... says: endpoint, token (sent to it), multipart, restores (after the page was loaded again).
import GoldenRetriever from '@uppy/golden-retriever'
import { makeUppy } from './uploader.js'

const query = new URLSearchParams(location.search)
const endpoint = query.get('endpoint')
const token = query.get('token')

if (token) {
  // As the backend of an application would do it in between.
  const plain = window.fetch
  window.fetch = (url, init = {}) =>
    plain(url, url.startsWith(endpoint) ? { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } } : init)
}

window.finished = []
window.problems = []
window.parts = []
window.restored = false

const uppy = makeUppy({ companionEndpoint: endpoint, shouldUseMultipart: query.get('multipart') === 'yes' })
if (query.get('restores') === 'yes') {
  uppy.use(GoldenRetriever, { indexedDB: { maxFileSize: 64 * 1024 * 1024 } })
}
uppy.on('restored', () => (window.restored = true)) // a person is asked whether to go on: uppy.emit('restore-confirmed')
uppy.on('s3-multipart:part-uploaded', (file, part) => window.parts.push(part.PartNumber))
uppy.on('upload-success', (file, { uploadURL, body }) => window.finished.push({ url: uploadURL, key: body.key }))
uppy.on('upload-error', (file, error) => window.problems.push(error.message))
window.uppy = uppy

document.querySelector('#file').addEventListener('change', ({ target }) => {
  for (const file of target.files) uppy.addFile({ name: file.name, type: file.type, data: file })
  void uppy.upload()
})
