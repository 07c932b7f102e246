// What went wrong, in words: what happened, and what there is to do about it.

const OFFLINE = ['This device is offline.', 'The upload goes on by itself when the network is back.']
const BROKEN = ['The connection to the server is broken.', 'The upload goes on by itself when the server can be reached again.']
const PASSING = 'What has arrived is safe, and the upload goes on by itself.'
const RELOAD = 'Reload this page and try again. If that does not help, tell whoever runs this server.'

// By the code in the server's problem document.
const BY_CODE = {
  upload_too_large: ['The file is too large for this server.', 'Choose a smaller file, or ask for the limit to be raised.'],
  body_too_large: ['The file has grown since it was chosen.', 'Choose it again.'],
  upload_locked: ['Another request, perhaps another tab, is sending to the same upload.', PASSING],
  offset_mismatch: ['Another request has sent to the same upload.', PASSING],
  lease_lost: ['Another request has taken this upload over.', PASSING],
  body_interrupted: ['Another request has taken this upload over.', PASSING],
  upload_gone: ['The upload has expired on the server.', 'Try again: it starts from the beginning.'],
  upload_not_found: ['The server no longer has this upload.', 'Try again: it starts from the beginning.'],
  bytes_missing: ['The server has lost bytes of this upload.', 'Try again, and tell whoever runs this server.'],
  checksum_mismatch: ['A piece was damaged on its way, and was thrown away.', 'Try again: what was stored before is still good.'],
  digest_mismatch: ['The file that arrived is not the file that was sent.', 'Try again: it starts from the beginning.'],
  tus_tail_missing: ['The last bytes are on another machine of this server, which cannot be reached now.', PASSING],
  state_unavailable: ['The database of the server does not answer.', PASSING],
  store_unavailable: ['The storage of the server does not answer.', PASSING],
  still_finishing: ['All bytes are there, and the server is putting the file together.', 'Nothing needs to be done.'],
  shutting_down: ['The server is being restarted.', PASSING],
  body_stalled: ['Nothing arrived at the server for too long.', PASSING],
  storage_full: ['The server has no space left.', 'What has arrived is kept. The upload goes on by itself when there is room.'],
  parts_exhausted: ['This upload was interrupted too often to go on.', 'Cancel it and upload the file again.'],
}

// By the status, where a proxy answered, or something newer than this page.
const BY_STATUS = {
  400: ['The server did not understand this page.', RELOAD],
  401: ['The server wants to know who you are.', 'Log in, then try again.'],
  403: ['You are not allowed to do this here.', 'Ask whoever runs this server.'],
  404: BY_CODE.upload_not_found,
  409: BY_CODE.offset_mismatch,
  410: BY_CODE.upload_gone,
  413: ['Something before the server, probably a proxy, refuses requests of this size.', 'Tell whoever runs this server to lift the limit of the proxy.'],
  423: BY_CODE.upload_locked,
  429: ['The server asks for a pause.', PASSING],
  460: BY_CODE.checksum_mismatch,
  500: ['The server has a defect.', 'What has arrived is safe. Tell whoever runs this server.'],
  502: ['The server does not answer the proxy before it.', PASSING],
  503: ['The server cannot take uploads now.', PASSING],
  504: ['The server does not answer the proxy before it.', PASSING],
  507: BY_CODE.storage_full,
}

/**
 * Puts a failed request into words.
 * status: 0 if there was no reply. body: what it said, perhaps a problem document.
 */
export function explain({ status, body = '', online = true }) {
  const { code, detail } = parseProblem(body)
  if (status === 0) return join(online ? BROKEN : OFFLINE)
  const known = BY_CODE[code] ?? BY_STATUS[status]
  if (known) return join(known)
  return join([`The server answered ${status}${detail ? `: ${detail}` : '.'}`, RELOAD])
}

function join([what, todo]) {
  return { what, todo }
}

function parseProblem(body) {
  try {
    const problem = JSON.parse(body)
    return problem !== null && typeof problem === 'object' ? problem : {}
  } catch {
    return {}
  }
}
