// What bench/run.sh asks of a server, done with node's http.
//
//     node bench/peers/server.js PORT ROOT

'use strict';

const fs = require('fs');
const http = require('http');
const path = require('path');

const [port, root] = process.argv.slice(2);
const IDLE_MS = 60000;
const BACKLOG = 1024;

function constant(type, text) {
  const body = Buffer.from(text);
  const fields = { 'Content-Type': type, 'Content-Length': body.length };
  return (request, response) => response.writeHead(200, fields).end(body);
}

function echo(request, response) {
  const pieces = [];
  request.on('data', piece => pieces.push(piece));
  request.on('end', () => {
    const body = Buffer.concat(pieces);
    response.writeHead(200, { 'Content-Type': 'application/octet-stream', 'Content-Length': body.length }).end(body);
  });
}

function file(request, response) {
  const name = path.join(root, path.normalize(request.url.slice('/files'.length)));
  fs.stat(name, (error, status) => {
    if (error || !status.isFile()) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { 'Content-Type': 'application/octet-stream', 'Content-Length': status.size });
    fs.createReadStream(name).pipe(response);
  });
}

const routes = {
  '/plaintext': constant('text/plain', 'Hello, World!'),
  '/json': constant('application/json', '{"message":"Hello, World!"}'),
  '/echo': echo,
};

const server = http.createServer((request, response) => {
  const route = routes[request.url] || (request.url.startsWith('/files/') ? file : null);
  if (route) route(request, response);
  else response.writeHead(404).end();
});
server.keepAliveTimeout = IDLE_MS;
server.listen({ host: '127.0.0.1', port: Number(port), backlog: BACKLOG });
