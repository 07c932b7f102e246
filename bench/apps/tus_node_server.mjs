// @tus/server with its file store. Copied next to its node_modules before it is started.
import { Server } from '@tus/server'
import { FileStore } from '@tus/file-store'

const server = new Server({
  path: '/files',
  datastore: new FileStore({ directory: process.env.BENCH_FILES_DIR }),
})
server.listen({ host: '127.0.0.1', port: Number(process.env.BENCH_PORT) })
