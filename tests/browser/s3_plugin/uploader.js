import AwsS3 from '@uppy/aws-s3'
import Uppy from '@uppy/core'

export function makeUppy(options) {
  const uppy = new Uppy().use(AwsS3, options)
  // The plugin tells the server what is in the metadata of a file, and its size is not.
  uppy.addPreProcessor((ids) => {
    for (const id of ids) uppy.setFileMeta(id, { size: uppy.getFile(id).size })
  })
  return uppy
}
