// @tus/server with its S3 store. Copied next to its node_modules before it is started.
import { Server } from '@tus/server'
import { S3Store } from '@tus/s3-store'

const env = process.env
const server = new Server({
  path: '/files',
  // For the end of the log, which is shown when a run fails.
  onResponseError: (_, error) => console.error(error?.body ?? error?.message ?? error),
  datastore: new S3Store({
    partSize: 8 * 1024 * 1024,
    s3ClientConfig: {
      bucket: env.BENCH_S3_BUCKET,
      endpoint: env.BENCH_S3_ENDPOINT,
      forcePathStyle: true,
      region: env.AWS_REGION,
      credentials: {
        accessKeyId: env.AWS_ACCESS_KEY_ID,
        secretAccessKey: env.AWS_SECRET_ACCESS_KEY,
      },
    },
  }),
})
server.listen({ host: '127.0.0.1', port: Number(env.BENCH_PORT) })
