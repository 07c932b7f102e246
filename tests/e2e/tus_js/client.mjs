// Runs one upload with tus-js-client as the JSON on the command line says; prints what happened.
//
// {file, endpoint, options, stream, abortAt, terminate}: options go to tus.Upload as they are;
// stream reads the file as a stream without a size; abortAt aborts once that many bytes were sent
// and then starts again on the same URL; terminate ends the upload on the server at that moment.

import { createReadStream, readFileSync } from 'node:fs'
import { PassThrough } from 'node:stream'
import * as tus from 'tus-js-client'

const job = JSON.parse(process.argv[2])
const requests = []
const progress = []

function run(input, extra, onProgress) {
  return new Promise((resolve, reject) => {
    const upload = new tus.Upload(input, {
      endpoint: job.endpoint,
      ...job.options,
      ...extra,
      onAfterResponse(request, response) {
        const offset = response.getHeader('Upload-Offset')
        requests.push([request.getMethod(), response.getStatus(), offset ? Number(offset) : null])
      },
      onProgress(sent) {
        progress.push(sent)
        if (onProgress) onProgress(sent, upload, resolve)
      },
      onSuccess: () => resolve(upload),
      onError: reject,
    })
    upload.start()
  })
}

function open() {
  // Piped, for tus-js-client 4.3.1 sends a wrong Content-Length for the end of an fs.ReadStream
  // whose length it is told to defer.
  return job.stream ? createReadStream(job.file).pipe(new PassThrough()) : readFileSync(job.file)
}

let upload
if (job.abortAt == null) {
  upload = await run(open(), {})
} else {
  let stopped = false
  upload = await run(open(), {}, async (sent, running, resolve) => {
    if (stopped || sent < job.abortAt) return
    stopped = true
    await running.abort(job.terminate === true)
    resolve(running)
  })
  if (!stopped) throw new Error('the upload was complete before it could be aborted')
  if (!job.terminate) upload = await run(open(), { uploadUrl: upload.url })
}
console.log(JSON.stringify({ url: upload.url, requests, progress: progress.at(-1) ?? null }))
process.exit(0)
