// Builds the page into tus_server/http/page, or into the folder that is named: the same input, the same bytes.
import { build } from 'esbuild'
import { copyFile, mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const target = process.argv[2] ?? join(here, '..', 'tus_server', 'http', 'page')

const result = await build({
  absWorkingDir: here,
  entryPoints: { page: 'src/main.jsx' },
  outdir: target,
  bundle: true,
  minify: true,
  metafile: true,
  format: 'iife',
  target: ['es2022'],
  charset: 'utf8',
  jsx: 'automatic',
  jsxImportSource: 'preact',
  // Notices inside the code stay in it; LICENSES.txt has those of the packages.
  legalComments: 'eof',
})
await mkdir(target, { recursive: true })
await copyFile(join(here, 'src', 'index.html'), join(target, 'index.html'))
await writeFile(join(target, 'LICENSES.txt'), await licenses(packagesIn(result.metafile)))

/** Gives the folder of every package that has a byte in the bundle, in order. */
function packagesIn(metafile) {
  const folders = new Set()
  for (const output of Object.values(metafile.outputs)) {
    for (const [path, { bytesInOutput }] of Object.entries(output.inputs)) {
      const [, folder] = path.match(/^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//) ?? []
      if (folder && bytesInOutput > 0) folders.add(folder)
    }
  }
  return [...folders].sort()
}

/** Gives what the README says of the license, for packages without a file of it. */
async function licenseInReadme(folder) {
  const readme = await readFile(join(here, folder, 'README.md'), 'utf8')
  return readme.match(/^#+ *licen[cs]e[^]*/im)?.[0] ?? ''
}

async function licenses(folders) {
  const notes = []
  for (const folder of folders) {
    const { name, version, license, author } = JSON.parse(await readFile(join(here, folder, 'package.json'), 'utf8'))
    const file = (await readdir(join(here, folder))).sort().find((entry) => /^licen[cs]e(\.\w+)?$/i.test(entry))
    const text = file
      ? await readFile(join(here, folder, file), 'utf8')
      : `License: ${license}. Author: ${author?.name ?? author}.\n\n${await licenseInReadme(folder)}`
    notes.push(`${name} ${version}\n\n${text.replaceAll('\r\n', '\n').trim()}\n`)
  }
  const rule = `\n${'-'.repeat(80)}\n\n`
  return `page.js and page.css contain these packages.\n${rule}${notes.join(rule)}`
}
